"""How a head's hyper-parameters are chosen."""

import warnings
from collections import Counter
from typing import Any

import joblib
import numpy as np
import pytest

from pipeline import heads
from pipeline.cluster import LocalProcess
from pipeline.core.errors import InputError
from pipeline.data.splits.folds import Fold
from pipeline.heads import Rows, entries, search, simplicity
from tests.heads.examples import data, fit, selection


def test_a_scalar_is_fixed_and_a_list_is_searched() -> None:
    assert entries.combinations({"kind": "knn", "n_neighbors": [1, 3], "weights": "uniform"}) == [
        {"n_neighbors": 1, "weights": "uniform"},
        {"n_neighbors": 3, "weights": "uniform"},
    ]


def test_the_best_mean_over_the_folds_is_chosen_and_all_candidates_are_kept() -> None:
    chosen = fit("logreg", {"C": [1e-6, 1.0]}, *data(), folds=3)
    assert chosen.params == {"C": 1.0}
    assert [len(candidate.scores) for candidate in chosen.candidates] == [3, 3]
    assert chosen.candidates[1].mean > chosen.candidates[0].mean


@pytest.mark.parametrize("scale", ["none", "standard", "l2"])
def test_the_search_scores_as_scikit_learns_own_grid_search_does(scale: str) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer, StandardScaler

    X, y = data(seed=3)
    X[:, :3] /= 2
    ours = fit("logreg", {"C": [1e-3, 1e-2, 1.0], "scale": scale}, X, y, folds=3)
    before = {"none": "passthrough", "standard": StandardScaler(), "l2": Normalizer()}[scale]
    model = make_pipeline(before, LogisticRegression(max_iter=2000))
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    reference = GridSearchCV(model, {"logisticregression__C": [1e-3, 1e-2, 1.0]}, cv=folds).fit(X, y)
    np.testing.assert_allclose([one.mean for one in ours.candidates], reference.cv_results_["mean_test_score"])


def test_preprocessing_is_searched_like_any_setting() -> None:
    X, y = data(width=12)
    chosen = fit("logreg", {"C": [0.1, 1.0], "components": [2, 6], "whiten": True, "scale": ["l2", "power"]}, X, y)
    assert len(chosen.candidates) == 8
    assert chosen.model[1].whiten
    assert chosen.model[1].n_components_ == chosen.params["components"]


def test_validation_search_scores_on_validation_and_refits_on_both() -> None:
    X, y = data(n=90)
    train, validation = Rows.of(X[:45], y[:45]), Rows.of(X[45:], y[45:])
    entry = {"C": "sweep", "search": "validation"}
    chosen = heads.fit("logreg", entry, train, validation, selection(), 0)
    assert [len(candidate.scores) for candidate in chosen.candidates] == [1] * 45
    assert [one.params["C"] for one in chosen.candidates][::44] == [1e-6, 1e5]

    fixed = {"C": chosen.params["C"]}
    before = heads.fit("logreg", fixed, train, validation, selection(), 0)
    np.testing.assert_allclose(chosen.validation, before.validation)  # taken before the refit
    both = heads.fit("logreg", fixed, Rows.of(X, y), validation, selection(), 0)
    np.testing.assert_allclose(chosen.model[-1].coef_, both.model[-1].coef_)


def test_halving_spends_few_rows_on_most_candidates_and_all_rows_on_the_last() -> None:
    X, y = data(n=180)
    entry = {"C": [10.0**k for k in range(-6, 4)], "scale": ["none", "standard"], "search": "halving", "candidates": 18}
    chosen = fit("logreg", entry, X, y, folds=3)
    rows = [candidate.rows for candidate in chosen.candidates]
    assert [rows.count(used) for used in (12, 39, None)] == [12, 4, 2]
    assert len({repr(one.params) for one in chosen.candidates}) == 18
    last = [one for one in chosen.candidates if one.rows is None]
    assert max(one.mean for one in last) == next(one.mean for one in last if one.params is chosen.params)


def test_however_few_rows_halving_uses_every_class_has_two_even_if_they_are_of_one_group() -> None:
    X, y = data(n=60)
    rows, every = Rows.of(X, y, group=y), np.arange(60)
    part = search._smaller_fold(Fold(every, every[:0], every[:0]), rows, np.random.default_rng(0).permutation(60), 0.01)
    assert Counter(y[part.train]) == dict.fromkeys(y, 2)


def test_halving_finds_what_the_whole_grid_finds() -> None:
    X, y = data(n=300, seed=5)
    entry = {"C": [10.0**k for k in range(-8, 1)]}
    whole, halved = fit("logreg", entry, X, y), fit("logreg", {**entry, "search": "halving"}, X, y)
    best = next(one.mean for one in whole.candidates if one.params == halved.params)
    assert best >= max(one.mean for one in whole.candidates) - 0.02


def candidate(C: float, *scores: float, spread: float | None = None) -> search.Candidate:
    return search.Candidate({"C": C}, scores, spread=spread)


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ([candidate(10, 0.9, 0.94), candidate(1, 0.90, 0.91), candidate(0.1, 0.89, 0.90)], 1),  # error 0.02, best 0.92
        ([candidate(10, 0.92, 0.92), candidate(1, 0.90, 0.93)], 10),  # error 0
        ([candidate(10, 0.92, 0.92), candidate(1, 0.92, 0.92)], 1),
        ([candidate(10, 0.92, spread=0.01), candidate(1, 0.911, spread=0.2), candidate(0.1, 0.90, spread=0.2)], 1),
    ],
)
def test_within_one_standard_error_of_the_best_the_simplest_wins(
    candidates: list[search.Candidate], expected: float
) -> None:
    order = simplicity.order_of("logreg", [(one.params, None) for one in candidates])
    assert candidates[search.best_of(candidates, order)].params == {"C": expected}


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_the_standard_error_of_one_split_is_that_over_images_or_groups(metric: str) -> None:
    generator = np.random.default_rng(0)
    truth, group = np.repeat([0, 1], 100), np.repeat(np.arange(20), 10)
    decided = np.where(generator.random(20)[group] < 0.2, 1 - truth, truth)
    share = (decided == truth).mean()
    alone = search.standard_error(metric, truth, decided, 2, np.arange(200))
    assert alone == pytest.approx((share * (1 - share) / 200) ** 0.5, rel=0.1)
    assert search.standard_error(metric, truth, decided, 2, group) == pytest.approx(alone * 10**0.5, rel=0.15)


def test_a_chosen_value_at_the_edge_of_three_or_more_is_noted() -> None:
    X, y = data()
    for C, end, further in ((1e-6, "smallest", "smaller"), (1.0, "largest", "larger")):
        entry = {"C": [1e-6, 1e-3, 1.0], "scale": "l2"}
        assert simplicity.on_the_edge("logreg", entries.build("logreg", entry, 0), {"C": C}) == [
            f"C={C:g} is the {end} of the 3 tried; {further} may do better."
        ]
    assert fit("logreg", {"C": [1e-7, 1e-6, 1.0], "scale": "l2"}, X, y).notes == [
        "C=1e-07 is the smallest of the 3 tried; smaller may do better."
    ]
    assert fit("logreg", {"C": [1e-6, 1.0]}, X, y).notes == []
    assert fit("logreg", {"C": 1.0}, X, y).notes == []


class OtherProcessor(LocalProcess):
    """A cluster whose decisions differ from those of this process."""

    def map(self, function: Any, tasks: Any) -> Any:
        for decided, warned in super().map(function, tasks):
            yield [np.roll(one, 1) for one in decided], warned


@pytest.mark.parametrize("how", ["grid", "validation", "halving"])
def test_a_head_that_scores_differently_here_than_in_the_search_is_an_error_with_both_scores(how: str) -> None:
    X, y = data()
    entry = {"C": [1e-3, 1.0], "search": how}
    with pytest.raises(
        InputError, match=r"scored 0\.\d+ accuracy for .*'C': .* fitted here scores (1|0)\.\d+ on the same"
    ):
        heads.fit("logreg", entry, Rows.of(X, y), Rows.of(X, y), selection(2), 0, cluster=OtherProcessor())


def test_class_weights_keep_their_effect_when_scores_become_probabilities() -> None:
    generator = np.random.default_rng(0)
    y = np.where(np.arange(400) % 10 == 0, "rare", "usual")
    X = (generator.normal(size=(400, 3)) + (y == "rare")[:, None]).astype(np.float32)
    found = [
        (heads.predict(fit("linear_svm", {"class_weight": weight}, X, y).model, X).argmax(axis=1) == 0).mean()
        for weight in (None, "balanced")
    ]
    assert found[1] > found[0] + 0.1


def test_an_outer_configuration_decides_where_the_search_runs() -> None:
    X, y = data()
    with joblib.parallel_config(backend="threading", n_jobs=2):
        parallel = fit("lda", {"shrinkage": ["auto", 0.5]}, X, y)
    assert parallel.candidates == fit("lda", {"shrinkage": ["auto", 0.5]}, X, y).candidates


def test_views_of_one_image_fall_into_one_fold_and_only_the_image_is_scored() -> None:
    y = np.repeat(["a", "b"], 10)
    image = np.concatenate([np.arange(20), np.repeat(np.arange(20), 2)])
    rows = Rows.of(np.zeros((60, 1)), np.concatenate([y, np.repeat(y, 2)]), image)
    for fold in search.folds_of(rows, 5, seed=0):
        assert not set(image[fold.train]) & set(image[fold.held])
        assert len(fold.train) + len(fold.held) == 60
        assert sorted(fold.judged) == sorted(set(image[fold.held]))


def test_groups_are_kept_whole() -> None:
    group = np.array([f"patient {number // 3}" for number in range(60)])
    group[:6] = ""
    rows = Rows.of(np.zeros((60, 1)), np.repeat(["a", "b"], 30), group=group)
    folds = search.folds_of(rows, 5, seed=0)
    assert sorted(np.concatenate([fold.judged for fold in folds])) == list(range(60))
    for fold in folds:
        assert not (set(group[fold.train]) & set(group[fold.held])) - {""}


def test_repeated_folds_give_mean_and_spread_over_folds_and_seeds() -> None:
    repeated = fit("nearest_mean", {}, *data(), folds=3, repeats=4).repeated
    values = repeated["accuracy"]["values"]
    assert len(values) == 12
    assert repeated["accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert repeated["accuracy"]["spread"] == pytest.approx(np.std(values, ddof=1))
    assert set(repeated) == {"folds", "repeats", "accuracy", "balanced_accuracy", "macro_f1"}


@pytest.mark.parametrize(
    ("name", "entry", "problem"),
    [
        ("logrg", {}, "did you mean 'logreg'"),
        ("own", {"kind": "rbf_smv"}, "did you mean 'rbf_svm'"),
        ("rbf_svm", {"gama": 1}, "unknown key: got 'gama', expected one of: .*; did you mean 'gamma'"),
        ("knn", {"n_neighbors": []}, "got an empty list"),
        ("logreg", {"C": -1}, "C: got -1, expected a number above 0"),
        ("logreg", {"C": [1, 0]}, "C: got 0, expected a number above 0"),
        ("linear_svm", {"C": -1}, "linear_svm.C: got -1, expected a number above 0"),
        ("knn", {"metric": "euclidian"}, "knn.metric: got 'euclidian', .*did you mean 'euclidean'"),
        ("knn", {"n_neighbors": 1000}, "n_neighbors"),
        ("mlp", {"hidden": -1}, "hidden: got -1, expected a whole number of at least 1"),
        ("mlp", {"epochs": 0}, "epochs: got 0"),
        ("mlp", {"learning_rate": 1e30}, "diverged"),
        ("mlp", {"class_weight": "equal"}, "class_weight: got 'equal', expected one of: balanced, null"),
        ("streaming_mlp", {"hidden": 0}, "hidden: got 0"),
        ("linear_svm", {"C": 10**400}, "too large"),
        ("logreg", {"scale": "standart"}, "scale: got 'standart', .*did you mean 'standard'"),
        ("logreg", {"whiten": True}, "whiten: got true without components"),
        ("logreg", {"components": 50}, "n_components=50 must be between"),
        ("logreg", {"search": "gird"}, "search: got 'gird', .*did you mean 'grid'"),
        ("logreg", {"calibrate": "platt"}, "calibrate: got 'platt', expected one of"),
        ("logreg", {"search": "halving", "candidates": 1}, "candidates: got 1, expected a whole number of at least 2"),
        ("sklearn_class", {"class_name": "sklearn.naive_bayes.GausianNB"}, r"mean 'sklearn.naive_bayes.GaussianNB'"),
        ("sklearn_class", {"class_name": "os.system"}, "class_name: got 'os.system', expected one of: sklearn"),
        ("sklearn_class", {"class_name": "sklearn.svm.SVR"}, "class_name: got 'sklearn.svm.SVR', expected one of"),
        ("sklearn_class", {"var_smothing": 1}, "did you mean 'var_smoothing'"),
        ("voting", {"members": {}}, "members: got {}, expected a mapping"),
        ("voting", {"members": {"logrg": {}}}, "members.logrg: got 'logrg'.*did you mean 'logreg'"),
        ("voting", {"members": {"knn": {"n_neighbours": 1}}}, "members.knn: unknown key: got 'n_neighbours'"),
        ("voting", {"members": {"knn": {"calibrate": "sigmoid"}}}, "members.knn.calibrate: not a setting of a member"),
    ],
)
def test_a_wrong_entry_is_an_input_error(name: str, entry: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        fit(name, entry, *data())


def test_a_class_with_fewer_rows_than_folds_is_named() -> None:
    with pytest.raises(InputError, match="class 'class 0': got 20 training images, expected at least 21"):
        fit("logreg", {"C": [1, 2]}, *data(), folds=21)


def test_a_class_with_fewer_groups_than_folds_is_named() -> None:
    X, y = data()
    rows = Rows.of(X, y, group=np.array(["one", "two", "three"] * 20))
    with pytest.raises(InputError, match="class 'class 0': got 20 training images in 1 groups, expected at least 2"):
        heads.fit("logreg", {"C": [1, 2]}, rows, rows, selection(folds=2), 0)


def test_a_class_absent_from_training_is_named() -> None:
    X, y = data()
    known = y != "class 1"
    with pytest.raises(InputError, match="heads.logreg: class 'class 1': in validation, but no training image has it"):
        heads.fit("logreg", {}, Rows.of(X[known], y[known]), Rows.of(X, y), selection(), 0)


def test_fits_that_do_not_converge_are_counted_and_not_printed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit("logreg", {"max_iter": 1}, *data()).unconverged == 1


def test_a_forest_predicts_the_same_bytes_every_time() -> None:
    X, y = data(n=300, width=20)
    model = fit("random_forest", {"n_estimators": 60, "min_samples_leaf": 3}, X, y).model
    assert len({heads.predict(model, X).tobytes() for _ in range(10)}) == 1


def test_any_classifier_of_scikit_learn_is_a_head_by_its_class_name() -> None:
    X, y = data()
    entry = {"class_name": "sklearn.ensemble.AdaBoostClassifier", "n_estimators": [5, 10], "kind": "sklearn_class"}
    assert fit("boosted", entry, X, y).params["n_estimators"] in {5, 10}


def test_an_ensemble_holds_any_other_heads() -> None:
    X, y = data()
    members = {"logreg": {"C": 0.1}, "near": {"kind": "knn", "n_neighbors": 3}, "rbf_svm": {"C": 3}}
    chosen = fit("voting", {"members": members}, X, y)
    each = [fit(str(entry.get("kind", name)), {k: v for k, v in entry.items() if k != "kind"}, X, y).model
            for name, entry in members.items() if name != "rbf_svm"]  # fmt: skip
    assert [name for name, _ in chosen.model[-1].estimators] == list(members)
    np.testing.assert_allclose(chosen.model[-1].estimators_[0].predict_proba(X), each[0].predict_proba(X))
    np.testing.assert_allclose(chosen.model[-1].estimators_[1].predict_proba(X), each[1].predict_proba(X))


def test_halving_keeps_two_groups_of_each_class_so_that_heads_can_cross_validate() -> None:
    """Class a has two groups, one of them with nearly all its images."""
    y, group = np.repeat(["a", "b"], 40), np.array([*["ann"] * 38, *["bob"] * 2, *(f"g{row % 9}" for row in range(40))])
    rows = Rows.of(np.zeros((80, 2)), y, group=group)
    fold = search.Fold(np.arange(80), np.arange(80), np.arange(80))
    part = search._smaller_fold(fold, rows, np.arange(80), 0.05)
    assert set(group[part.train][y[part.train] == "a"]) == {"ann", "bob"}
    assert len(part.train) < 10
