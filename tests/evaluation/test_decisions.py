import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import InputError
from pipeline.evaluation import comparison, decisions
from pipeline.evaluation.scoring import metrics
from pipeline.evaluation.scoring.predictions import Predictions
from tests.evaluation.examples import predictions


def two_classes(p_second: list[float], second: list[bool]) -> Predictions:
    n = len(second)
    probability = np.column_stack([1 - np.array(p_second), p_second])
    return Predictions([str(i) for i in range(n)], ["val"] * n, ["b" if one else "a" for one in second], ["a", "b"],
                       probability)  # fmt: skip


def test_without_a_rule_the_most_probable_class_is_decided() -> None:
    assert decisions.choose(predictions(), "most_probable", {}, "accuracy") is None


def test_a_threshold_is_the_one_with_the_best_score_on_validation() -> None:
    rare = two_classes([0.05, 0.1, 0.15, 0.2, 0.3, 0.35], [False, False, False, False, True, True])
    assert metrics.score(rare)["balanced_accuracy"] == 0.5
    rule = decisions.choose(rare, "threshold", {}, "balanced_accuracy")
    assert rule is not None
    assert rule.threshold == pytest.approx(0.25)
    assert metrics.score(rule.apply(rare))["balanced_accuracy"] == 1


def searched(validation: Predictions, metric: str) -> float:
    """Return the best threshold by scoring each one on its own."""
    truth, p = validation.truth(), validation.probability[:, 1]
    ascending = np.unique(p)
    between = np.clip((ascending[1:] + ascending[:-1]) / 2, 1e-6, 1 - 1e-6)
    thresholds = np.unique(np.append(between, 0.5))
    scores = np.array([metrics.value(metric, truth, (p > one).astype(np.int64), 2) for one in thresholds])
    best = thresholds[scores == scores.max()]
    return float(best[np.abs(best - 0.5).argmin()])


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1"])
@given(
    some=st.lists(st.tuples(st.sampled_from([0.0, 1e-9, 0.2, 0.5, 0.7, 1.0]) | st.floats(0, 1), st.booleans())),
    one=st.floats(0, 1),
)
@settings(max_examples=80)
def test_the_threshold_is_the_one_that_trying_each_finds(
    metric: str, some: list[tuple[float, bool]], one: float
) -> None:
    validation = two_classes([*(p for p, _ in some), one], [*(second for _, second in some), True])
    rule = decisions.choose(validation, "threshold", {}, metric)
    assert rule is not None
    assert rule.threshold == searched(validation, metric)


def test_a_threshold_among_half_a_million_scores_takes_seconds_at_most() -> None:
    generator = np.random.default_rng(0)
    second = generator.random(500_000) < 0.3
    validation = two_classes(generator.random(500_000).tolist(), second.tolist())
    started = time.perf_counter()
    decisions.choose(validation, "threshold", {}, "macro_f1")  # each of them on its own would take hours
    assert time.perf_counter() - started < 20


def test_the_threshold_stays_a_half_if_no_other_is_better() -> None:
    rule = decisions.choose(two_classes([0.1, 0.9], [False, True]), "threshold", {}, "accuracy")
    assert rule is not None
    assert rule.threshold == 0.5


def test_costs_decide_for_the_smallest_expected_cost() -> None:
    one = two_classes([0.05, 0.15, 0.4, 0.9], [False, True, False, True])
    rule = decisions.choose(one, "most_probable", {"b": {"a": 9}}, "accuracy")
    assert rule is not None
    assert rule.apply(one).decision().tolist() == [0, 1, 1, 1]  # from p = 0.1 on, a miss costs more than an alarm
    cost = decisions.mean_cost(decisions.cost_matrix({"b": {"a": 9}}, ["a", "b"]))
    assert metrics.plain(one, {"cost": cost})["cost"] == pytest.approx(9 / 4)
    assert metrics.plain(rule.apply(one), {"cost": cost})["cost"] == pytest.approx(1 / 4)
    samples = comparison.bootstrap([rule.apply(one)], 50, 0, {"cost": cost}).metrics["cost"]
    assert 0 <= samples.min() < samples.max() <= 1


def test_a_rule_stays_with_the_rows_of_its_split() -> None:
    one = predictions()
    rule = decisions.choose(one, "most_probable", {"c0": {"c1": 0}}, "accuracy")
    assert rule is not None
    decided = rule.apply(one)
    np.testing.assert_array_equal(decided.of("test").decision(), decided.decision())


def test_costs_of_a_class_that_does_not_exist_name_the_nearest() -> None:
    with pytest.raises(InputError, match="compare.costs: got 'cc0', expected one of: c0, c1, c2; did you mean 'c0'"):
        decisions.choose(predictions(), "most_probable", {"cc0": {"c1": 2}}, "accuracy")


def test_a_threshold_needs_two_classes() -> None:
    with pytest.raises(InputError, match="got 'threshold' with 3 classes, expected two"):
        decisions.choose(predictions(), "threshold", {}, "accuracy")
