"""Rank metrics that are linear in how often each image counts."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import stamps
from pipeline.core.errors import StateError
from pipeline.evaluation import comparison, decisions
from pipeline.evaluation.scoring import condensed, metrics, predictions, ranks
from pipeline.evaluation.scoring.metrics import METRICS
from pipeline.evaluation.scoring.outcomes import Outcomes
from pipeline.evaluation.scoring.predictions import Floats, Predictions
from tests.evaluation import examples

NAMES = ("roc_auc", "average_precision")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [2, 3, 5])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15)
def test_an_influence_is_the_derivative_by_how_often_an_image_counts(name: str, classes: int, seed: int) -> None:
    whole = Outcomes.of(examples.predictions(seed, n=40, classes=classes))
    linear, step = whole.linear().probabilities.ranks[name], 1e-6
    counts = np.ones((41, 40)) + step * np.vstack([np.zeros(40), np.eye(40)])
    value, *moved = METRICS[name](counts, whole)
    assert linear.value == pytest.approx(value, abs=1e-12)
    np.testing.assert_allclose(linear.influence, (np.array(moved) - value) / step, atol=1e-5)
    assert linear.influence.sum() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_linear_interval_is_that_of_the_whole_bootstrap(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    some = [examples.predictions(seed, n=900, classes=4, skill=skill) for seed, skill in ((0, 1.0), (1, 1.5))]
    whole = comparison.bootstrap(some, 400, 0).metrics[name]
    monkeypatch.setattr(comparison, "_MOST_SORTED", 0)
    linear = comparison.bootstrap(some, 400, 0).metrics[name]
    for one, other in ((whole[0], linear[0]), (whole[1] - whole[0], linear[1] - linear[0])):
        np.testing.assert_allclose(comparison.interval(other), comparison.interval(one), atol=0.15 * 4 * one.std())


@given(
    own=st.lists(st.floats(0, 1) | st.sampled_from([0.0, 5e-324, 0.25, 0.5, 1.0]), min_size=1, unique=True),
    score=st.lists(st.floats(0, 1) | st.sampled_from([0.0, 5e-324, 0.25, 0.5, 1.0]), min_size=1),
)
@settings(max_examples=60)
def test_the_table_of_leading_bits_agrees_with_a_search(own: list[float], score: list[float]) -> None:
    ascending = np.sort(np.array(own) + 0.0)
    many = np.resize(np.array([*score, *own]) + 0.0, ranks._KEYS)  # so many that the table is used
    found = ranks._count_at_most(ascending, many)
    np.testing.assert_array_equal(found, np.searchsorted(ascending, many, side="right"))


def stored(path: Path, one: Predictions) -> stamps.Stamp:
    predictions.write(path, one)
    return stamps.Stamp("train", stamps.hashes([path]), {})


def two_splits() -> Predictions:
    one = examples.predictions(n=300, classes=5)
    return Predictions(one.image_id, ["val"] * 90 + ["test"] * 210, one.label, one.classes, one.probability)


def plain(one: Predictions, counts: Floats) -> dict[str, Floats]:
    return {name: metric(counts, Outcomes.of(one)) for name, metric in METRICS.items()}


@pytest.mark.parametrize("costs", [{}, {"c0": {"c1": 0.0, "c2": 5.0}}])
def test_condensed_predictions_score_as_full_ones_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, costs: decisions.Costs
) -> None:
    one, path = two_splits(), tmp_path / "p.parquet"
    monkeypatch.setattr(predictions, "MOST_IN_MEMORY", 200)  # groups of forty rows
    monkeypatch.setattr(condensed, "MOST_IN_MEMORY", 200)
    kept = condensed.read(path, stored(path, one))
    assert kept.probability.shape == (300, 0)
    if rule := decisions.choose(one.of("val"), "most_probable", costs, "accuracy"):
        one, kept = rule.apply(one), rule.apply(kept)
    for split in ("val", "test"):
        mine, theirs = kept.of(split), one.of(split)
        np.testing.assert_array_equal(mine.decision(), theirs.decision())
        np.testing.assert_array_equal(mine.of_decision(), theirs.of_decision())
        np.testing.assert_array_equal(mine.probabilities.of_truth, theirs.probabilities.of_truth)
        found, expected = (plain(some, np.ones((1, len(some.label)))) for some in (mine, theirs))
        for name in METRICS:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-12, err_msg=name)
    test = [comparison.bootstrap([some.of("test")], 50, 0) for some in (kept, one)]
    np.testing.assert_array_equal(test[0].metrics["macro_f1"], test[1].metrics["macro_f1"])
    np.testing.assert_allclose(test[0].metrics["log_loss"], test[1].metrics["log_loss"], atol=1e-12)


def test_condensed_predictions_that_are_not_numbers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, path = two_splits(), tmp_path / "p.parquet"
    one.probability[7, 3] = np.nan
    monkeypatch.setattr(condensed, "MOST_IN_MEMORY", 200)
    with pytest.raises(StateError, match="holds probabilities that are not numbers"):
        condensed.read(path, stored(path, one))


def test_decisions_among_many_classes_take_little_memory() -> None:
    generator = np.random.default_rng(0)
    truth, decided = generator.integers(2000, size=(2, 20_000))
    tracemalloc.start()
    metrics.value("macro_f1", truth, decided, 2000)
    assert tracemalloc.get_traced_memory()[1] < 20e6  # a row of classes for every image takes 320 MB
    tracemalloc.stop()
