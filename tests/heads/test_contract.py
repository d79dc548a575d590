"""One contract for every head of the catalogue."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import heads
from pipeline.core import stamps
from pipeline.core.errors import InputError
from pipeline.heads import HEADS, Rows, registry, search, simplicity
from pipeline.networks import streaming
from tests.conftest import REPOSITORY
from tests.heads.across import NAMES, predicted_by_saved_heads
from tests.heads.examples import NEEDS_FOLDS, QUICK, data, fitted, selection
from tests.processors import PROCESSORS
from tests.soak import soak

every_head = pytest.mark.parametrize("name", list(HEADS))


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    """Train heads that stream for fewer steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "STEPS", 60)
        yield


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
@pytest.mark.processors
def test_a_head_predicts_the_same_after_save_and_load(name: str, tmp_path: Path) -> None:
    X, y = data()
    model = fitted(name, X, y).model
    before = heads.predict(model, X)
    files = heads.save(tmp_path, model)
    loaded = heads.load(tmp_path, stamps.Stamp("train", stamps.hashes(files), {}))
    np.testing.assert_array_equal(heads.predict(loaded, X), before)
    np.testing.assert_array_equal(heads.predict(model, X), before)


def test_another_processor_predicts_the_same(tmp_path: Path) -> None:
    X, y = data(width=160)
    for name in NAMES:
        heads.save(tmp_path / name, fitted(name, X, y).model)
    code = "from tests.heads import across; print([x.tolist() for x in across.predicted_by_saved_heads()])"
    environment = {**os.environ, **PROCESSORS[0].environment(), "PYTHONPATH": str(REPOSITORY)}
    said = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    for one, other in zip(predicted_by_saved_heads(tmp_path), json.loads(said), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=heads.PREDICTION_TOLERANCE)


@every_head
@given(n=st.integers(12, 30), width=st.integers(1, 12), classes=st.integers(2, 3))
@settings(max_examples=3)
def test_any_shape_is_accepted(name: str, n: int, width: int, classes: int) -> None:
    X, y = data(classes, n, width)
    assert heads.predict(fitted(name, X, y).model, X).shape == (n, classes)


@every_head
def test_a_single_feature_is_enough(name: str) -> None:
    X, y = data(classes=2)
    X = np.where(y == "class 0", 3.0, -3.0)[:, None] + X[:, 2:3]
    model = fitted(name, X.astype(np.float32), y).model
    assert (model.classes_[heads.predict(model, X).argmax(axis=1)] == y).mean() > 0.9


@every_head
def test_constant_features_are_accepted(name: str) -> None:
    X, y = data()
    X[:, 1] = 7
    assert np.isfinite(heads.predict(fitted(name, X, y).model, X)).all()


@every_head
def test_identical_features_give_finite_probabilities_or_a_one_line_error(name: str) -> None:
    _, y = data()
    X = np.full((60, 4), 0.5, np.float32)
    try:
        model = fitted(name, X, y).model
    except InputError as error:
        assert str(error) in {  # noqa: PT017  # either is right
            f"params.yaml: heads.{name}: All features have zero variance. Division by zero.",
            f"params.yaml: heads.{name}: gives probabilities that are not numbers; do the features differ from one "
            "another at all?",
        }
    else:
        assert np.isfinite(heads.predict(model, X)).all()


@every_head
def test_half_precision_is_accepted(name: str) -> None:
    X, y = data()
    model = fitted(name, X.astype(np.float16), y).model
    assert (model.classes_[heads.predict(model, X.astype(np.float16)).argmax(axis=1)] == y).mean() > 0.6


@every_head
def test_a_class_with_one_sample_is_learnt_or_refused_by_name(name: str) -> None:
    X, y = data(classes=2, n=41)
    y[40], X[40] = "rare", 9
    if name in NEEDS_FOLDS:
        with pytest.raises(InputError, match="class 'rare': got 1 training images"):
            fitted(name, X, y)
    else:
        assert heads.predict(fitted(name, X, y).model, X).shape == (41, 3)


@every_head
def test_a_row_that_is_not_a_number_is_named(name: str) -> None:
    X, y = data()
    X[17, 2] = np.nan
    with pytest.raises(InputError, match=rf"heads.{name}: features: row 17: got NaN"):
        fitted(name, X, y)


@every_head
def test_every_head_trains_on_further_views(name: str) -> None:
    X, y = data()
    image = np.concatenate([np.arange(60), np.arange(60)])
    views = Rows.of(np.concatenate([X, X + 0.01]), y[image], image)
    chosen = heads.fit(name, QUICK.get(name, {}), views, Rows.of(X, y), selection(folds=2), 0)
    assert (chosen.model.classes_[heads.predict(chosen.model, X).argmax(axis=1)] == y).mean() > 0.6


@every_head
def test_every_head_can_be_calibrated(name: str) -> None:
    X, y = data()
    entry = {**QUICK.get(name, {}), "calibrate": "temperature"}
    chosen = heads.fit(name, entry, Rows.of(X[:40], y[:40]), Rows.of(X[40:], y[40:]), selection(folds=2), 0)
    np.testing.assert_allclose(heads.predict(chosen.model, X).sum(axis=1), 1)
    assert set(chosen.calibration) == {"method", "before", "after"}


def two_of(name: str) -> dict[str, object]:
    """Return an entry with two candidates."""
    return {**QUICK.get(name, {}), **({"epochs": [1, 2]} if "streaming" in name else {"scale": ["none", "standard"]})}


@every_head
@pytest.mark.parametrize(
    ("how", "method", "classes"),
    [("grid", "sigmoid", 2), ("validation", "none", 3),
     *soak([("grid", "sigmoid", 3), ("validation", "none", 2), ("grid", "none", 2), ("grid", "none", 3)])],
)  # fmt: skip
def test_the_search_scores_the_head_that_is_saved(name: str, how: str, method: str, classes: int) -> None:
    X, y = data(classes, n=80, seed=2)
    X[::2] = np.random.default_rng(3).normal(size=(40, 6))  # so that heads differ
    train, validation, choice = Rows.of(X[:60], y[:60]), Rows.of(X[60:], y[60:]), selection(folds=2)
    chosen = heads.fit(name, {**two_of(name), "search": how, "calibrate": method}, train, validation, choice, 0)
    winner = next(one for one in chosen.candidates if one.params is chosen.params)
    alone = dict(chosen.params)
    if how == "validation":
        shipped = heads.fit(name, alone, train, validation, choice, 0)
        names = np.unique(y)
        assert (names[shipped.validation.argmax(axis=1)] == validation.y).mean() == winner.scores[0]
        return
    for fold, score in zip(search.folds_of(train, 2, 0), winner.scores, strict=True):
        head = heads.fit(name, {**alone, "calibrate": method}, train[fold.train], validation, choice, 0).model
        decided = head.classes_[heads.predict(head, train.X[fold.judged]).argmax(axis=1)]
        assert (decided == train.y[fold.judged]).mean() == score


@every_head
def test_settings_are_ordered_by_simplicity_as_the_factory_says_or_else_as_in_params_yaml(name: str) -> None:
    simpler, every = registry.SIMPLER[name], registry.settings_of(name, {})
    assert set(simpler) <= every
    for key in every:
        models = [({key: value}, None) for value in ("auto", 1, 2)]
        order = simplicity.order_of(name, models)
        ranked = [settings[key] for settings, _ in sorted(models, key=lambda model: order(model[0]))]
        assert ranked == {None: ["auto", 1, 2], True: [2, 1, "auto"], False: [1, 2, "auto"]}[simpler.get(key)]
