"""One contract for every head of the catalogue, and how one is chosen, saved and loaded."""

import pickle
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import heads, stamps
from pipeline.errors import InputError, StateError
from pipeline.heads import HEADS
from pipeline.params import Selection
from tests.conftest import REPOSITORY

every_head = pytest.mark.parametrize("name", list(HEADS))
QUICK: dict[str, dict[str, Any]] = {"random_forest": {"n_estimators": 10}, "mlp": {"hidden": 16, "learning_rate": 0.01}}


def selection(folds: int = 5) -> Selection:
    return Selection(metric="accuracy", folds=folds)


def data(classes: int = 3, n: int = 60, width: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    y = np.arange(n) % classes
    X = generator.normal(size=(n, width)).astype(np.float32)
    X[np.arange(n), y % width] += 3
    return X, np.array([f"class {k}" for k in range(classes)])[y]


def fitted(name: str, X: np.ndarray, y: np.ndarray) -> heads.Chosen:
    return heads.fit(name, QUICK.get(name, {}), X, y, selection(folds=2), seed=0)


@every_head
@pytest.mark.parametrize("classes", [2, 4])
def test_probabilities_are_rows_that_sum_to_one_in_the_order_of_the_classes(name: str, classes: int) -> None:
    X, y = data(classes)
    model = fitted(name, X, y).model
    probability = heads.predict(model, X)
    assert probability.shape == (60, classes)
    assert (probability >= 0).all()
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    assert list(model.classes_) == sorted(set(y))
    assert (model.classes_[probability.argmax(axis=1)] == y).mean() > 0.6


@every_head
def test_a_seeded_fit_repeats(name: str) -> None:
    X, y = data()
    one, two = (heads.predict(fitted(name, X, y).model, X) for _ in range(2))
    np.testing.assert_array_equal(one, two)


@every_head
def test_a_head_predicts_the_same_after_save_and_load(name: str, tmp_path: Path) -> None:
    X, y = data()
    model, path = fitted(name, X, y).model, tmp_path / "model.skops"
    heads.save(path, model)
    loaded = heads.load(path, stamps.Stamp("train", stamps.hashes([path]), {}))
    np.testing.assert_array_equal(heads.predict(loaded, X), heads.predict(model, X))


@every_head
@given(n=st.integers(12, 30), width=st.integers(1, 12), classes=st.integers(2, 3))
@settings(max_examples=3)
def test_any_shape_is_taken(name: str, n: int, width: int, classes: int) -> None:
    X, y = data(classes, n, width)
    assert heads.predict(fitted(name, X, y).model, X).shape == (n, classes)


@every_head
def test_constant_features_are_no_obstacle(name: str) -> None:
    X, y = data()
    X[:, 1] = 7
    assert np.isfinite(heads.predict(fitted(name, X, y).model, X)).all()


def test_a_forest_predicts_the_same_bytes_every_time() -> None:
    X, y = data(n=300, width=20)
    model = heads.fit("random_forest", {"n_estimators": 60, "min_samples_leaf": 3}, X, y, selection(folds=2), 0).model
    assert len({heads.predict(model, X).tobytes() for _ in range(10)}) == 1


def test_a_scalar_is_fixed_and_a_list_is_searched() -> None:
    assert heads.candidates_of({"kind": "knn", "n_neighbors": [1, 3], "weights": "uniform"}) == [
        {"n_neighbors": 1, "weights": "uniform"},
        {"n_neighbors": 3, "weights": "uniform"},
    ]


def test_the_best_mean_over_the_folds_is_chosen_and_all_candidates_are_kept() -> None:
    X, y = data()
    chosen = heads.fit("logreg", {"C": [1e-6, 1.0]}, X, y, selection(folds=3), 0)
    assert chosen.params == {"C": 1.0}
    assert [len(candidate.scores) for candidate in chosen.candidates] == [3, 3]
    assert chosen.candidates[1].mean > chosen.candidates[0].mean


def test_the_search_scores_as_scikit_learns_own_grid_search_does() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = data(seed=3)
    X[:, :3] /= 2
    ours = heads.fit("logreg", {"C": [1e-3, 1e-2, 1.0]}, X, y, selection(folds=3), 0)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    reference = GridSearchCV(model, {"logisticregression__C": [1e-3, 1e-2, 1.0]}, cv=folds).fit(X, y)
    np.testing.assert_allclose([one.mean for one in ours.candidates], reference.cv_results_["mean_test_score"])


@pytest.mark.parametrize(
    ("name", "entry", "problem"),
    [
        ("logrg", {}, "did you mean 'logreg'"),
        ("own", {"kind": "rbf_smv"}, "did you mean 'rbf_svm'"),
        ("rbf_svm", {"gama": 1}, "unknown key: got 'gama', expected one of: C, gamma; did you mean 'gamma'"),
        ("knn", {"n_neighbors": []}, "got an empty list"),
        ("logreg", {"C": -1}, "'C' parameter of LogisticRegression must be"),
        ("knn", {"metric": "euclidian"}, "'metric' parameter of KNeighborsClassifier"),
        ("knn", {"n_neighbors": 1000}, "n_neighbors"),
        ("mlp", {"hidden": -1}, "hidden: got -1, expected at least 1"),
        ("mlp", {"epochs": 0}, "epochs: got 0"),
        ("mlp", {"learning_rate": 1e30}, "diverged"),
        ("logreg", {"C": 10**400}, "too large"),
    ],
)
def test_a_wrong_entry_is_an_input_error(name: str, entry: dict[str, Any], problem: str) -> None:
    X, y = data()
    with pytest.raises(InputError, match=problem):
        heads.predict(heads.fit(name, entry, X, y, selection(folds=2), 0).model, X)


def test_a_class_with_fewer_rows_than_folds_is_named() -> None:
    X, y = data()
    with pytest.raises(InputError, match="class 'class 0': got 20 training images, expected at least 21"):
        heads.fit("logreg", {}, X, y, selection(folds=21), 0)


def test_fits_that_do_not_converge_are_counted_and_not_printed() -> None:
    X, y = data()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert heads.fit("logreg", {"max_iter": 1}, X, y, selection(folds=2), 0).unconverged == 1


class Malicious:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("executed"),))


def test_a_file_with_other_bytes_than_recorded_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(StateError, match="as stamped"):
        heads.load(path, stamps.Stamp("train", {path.as_posix(): "0" * 64}, {}))


def test_a_stamped_file_with_foreign_types_is_refused_unexecuted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.skops"
    X, y = data()
    heads.save(path, fitted("logreg", X, y).model)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["schema.json"] = (
        files["schema.json"].replace(b"StandardScaler", b"Popen").replace(b"sklearn.preprocessing._data", b"subprocess")
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(StateError, match=r"no head of ours has: subprocess\.Popen"):
        heads.load(path, stamps.Stamp("train", stamps.hashes([path]), {}))
    assert not Path("executed").exists()


def test_a_scikit_learn_head_never_loads_torch(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
import numpy as np
import pipeline.cli, pipeline.stages.train
from pipeline import heads
from pipeline.params import Selection
X, y = np.random.default_rng(0).normal(size=(40, 3)), np.array(["a", "b"] * 20)
chosen = heads.fit("rbf_svm", {{}}, X, y, Selection(metric="accuracy"), 0)
heads.save(Path({str(tmp_path / "model.skops")!r}), chosen.model)
sys.exit("torch was loaded" if "torch" in sys.modules else 0)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_views_of_one_image_fall_into_one_fold_and_only_the_image_is_scored() -> None:
    y = np.repeat(["a", "b"], 10)
    image = np.concatenate([np.arange(20), np.repeat(np.arange(20), 2)])
    for fold in heads._splits(np.concatenate([y, np.repeat(y, 2)]), image, 5, seed=0):
        assert not set(image[fold.train]) & set(image[fold.held])
        assert len(fold.train) + len(fold.held) == 60
        assert sorted(fold.judged) == sorted(set(image[fold.held]))


@every_head
def test_every_head_trains_on_further_views(name: str) -> None:
    X, y = data()
    image = np.concatenate([np.arange(60), np.arange(60)])
    views = np.concatenate([X, X + 0.01])
    chosen = heads.fit(name, QUICK.get(name, {}), views, y[image], selection(folds=2), 0, image)
    assert (chosen.model.classes_[heads.predict(chosen.model, X).argmax(axis=1)] == y).mean() > 0.6
