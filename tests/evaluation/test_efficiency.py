"""Crossovers: worked by hand, and their interval's coverage by simulation."""

import math

import numpy as np
import pytest

from pipeline.evaluation import efficiency
from pipeline.evaluation.curves import CurveDecisions, Point
from pipeline.evaluation.efficiency import LabelEfficiency, crossing
from pipeline.verdict.wording.factors import crossover_sentence

LABELS = np.array([10, 100, 1000])


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        ([0.1, 0.2, 0.3], 10),
        ([-0.1, -0.2, -0.1], math.inf),
        ([-0.1, 0.1, 0.2], 10**1.5),
        ([-0.3, -0.1, 0.3], 10**2.25),
        ([0.1, -0.1, 0.1], 10**2.5),
        ([0.2, 0.1, 0.0], math.inf),
        ([0.0, 0.1, 0.1], 10),
    ],
)
def test_the_crossover_is_where_the_difference_last_becomes_positive(difference: list[float], expected: float) -> None:
    assert crossing(LABELS, np.array(difference)) == pytest.approx(expected)


def drawn_curve(accuracy: dict[str, list[float]], drawings: int, images: int, seed: int = 0) -> CurveDecisions:
    """Make decisions that are right with these probabilities, by number of labels; half the images are validation."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(2, size=images)
    points = [
        Point(run, int(labels), drawing, np.where(generator.random(images) < p, truth, 1 - truth))
        for run, some in accuracy.items()
        for labels, p in zip(LABELS, some, strict=True)
        for drawing in range(drawings)
    ]
    split = ["val", "test"] * (images // 2)
    label = ["ab"[one] for one in truth]
    kinds = {run: "plan" if run.startswith("plan") else "head" for run in accuracy}
    return CurveDecisions([str(row) for row in range(images)], split, label, ["a", "b"], kinds, points, {})


def judged(accuracy: dict[str, list[float]], drawings: int = 3, images: int = 4000, seed: int = 0) -> LabelEfficiency:
    return efficiency.label_efficiency(drawn_curve(accuracy, drawings, images, seed), "accuracy", 300, 0)


def test_every_run_is_scored_by_number_of_labels_on_the_test_images() -> None:
    found = judged({"logreg": [0.6, 0.7, 0.8], "plan": [0.5, 0.75, 0.9]})
    assert [one.labels for one in found.reached["plan"]] == [10, 100, 1000]
    for run, expected in (("logreg", [0.6, 0.7, 0.8]), ("plan", [0.5, 0.75, 0.9])):
        for one, p in zip(found.reached[run], expected, strict=True):
            assert one.score.value == pytest.approx(p, abs=0.03)
            assert one.score.low < one.score.value < one.score.high
            assert one.spread is not None
            assert one.spread == pytest.approx(math.sqrt(p * (1 - p) / 2000), abs=0.02)


def test_a_plan_that_gets_ahead_has_a_crossover_with_an_interval() -> None:
    (one,) = judged({"logreg": [0.7, 0.7, 0.7], "plan": [0.6, 0.8, 0.9]}).crossovers
    assert one.labels == pytest.approx(10**1.5, rel=0.5)
    assert one.low is not None
    assert one.high is not None
    assert one.low < one.labels < one.high
    assert one.ahead_with_all == 1.0


def test_a_plan_that_is_as_good_is_not_ahead() -> None:
    (one,) = judged({"logreg": [1.0, 1.0, 1.0], "plan": [0.5, 1.0, 1.0]}).crossovers
    assert (one.labels, one.ahead_with_all) == (None, 0.0)


def test_a_plan_that_never_gets_ahead_has_none_within_the_data() -> None:
    found = judged({"logreg": [0.7, 0.8, 0.9], "plan": [0.5, 0.6, 0.7]})
    (one,) = found.crossovers
    assert (one.labels, one.low, one.high, one.ahead_with_all) == (None, None, None, 0.0)
    assert (
        crossover_sentence(one, found) == "plan is not ahead of the best frozen head (logreg) with all 1,000 labels; "
        "nor is it in at least 97.5% of the resamples, so chance hardly explains that."
    )


def test_a_plan_that_is_ahead_everywhere_is_ahead_from_the_least_on() -> None:
    found = judged({"logreg": [0.5, 0.5, 0.5], "plan": [0.9, 0.9, 0.9]})
    (one,) = found.crossovers
    assert (one.labels, one.low, one.high) == (10, 10, 10)
    assert "stays ahead of the best frozen head (logreg) from 10 or fewer labels on" in crossover_sentence(one, found)


def test_a_plan_that_is_ahead_with_fewer_labels_only_is_said_to_be_and_no_interval_of_a_number_is_given() -> None:
    found = judged({"logreg": [0.5, 0.7, 0.9], "plan": [0.6, 0.8, 0.89]}, images=400)
    (one,) = found.crossovers
    assert one.labels is None
    assert one.low is not None
    assert crossover_sentence(one, found) == (
        "plan is not ahead of the best frozen head (logreg) with all 1,000 labels, though it is with 10 and 100; in "
        f"{one.ahead_with_all:.0%} of the resamples it is ahead with all of them, so the test images do not settle "
        "which is better."
    )


def test_an_uncertain_crossover_has_an_open_interval() -> None:
    found = judged({"logreg": [0.7, 0.7, 0.7], "plan": [0.6, 0.65, 0.705]}, images=400)
    (one,) = found.crossovers
    assert one.high is None
    assert 0 < one.ahead_with_all < 1
    assert one.labels is None
    assert f"in {one.ahead_with_all:.0%} of the resamples it is ahead" in crossover_sentence(one, found)


def test_the_head_to_compare_with_is_the_best_on_validation_for_each_number_of_labels() -> None:
    (one,) = judged({"few": [0.8, 0.6, 0.6], "many": [0.6, 0.8, 0.9], "plan": [0.7, 0.7, 0.7]}).crossovers
    assert one.heads == ["few", "many", "many"]


def test_test_images_do_not_choose_the_head() -> None:
    curve = drawn_curve({"one": [0.9] * 3, "two": [0.6] * 3, "plan": [0.7] * 3}, 2, 400)
    test = np.array(curve.split) == "test"
    for point in curve.points:
        if point.run == "one":
            point.decided[test] = 1 - point.decided[test]
    (crossover,) = efficiency.label_efficiency(curve, "accuracy", 100, 0).crossovers
    assert crossover.heads == ["one"] * 3


def test_without_heads_or_plans_there_is_no_crossover() -> None:
    assert judged({"plan": [0.7, 0.7, 0.7]}, images=200).crossovers == []
    assert judged({"logreg": [0.7, 0.7, 0.7]}, images=200).crossovers == []


def test_one_drawing_has_no_spread() -> None:
    assert judged({"logreg": [0.7, 0.7, 0.7]}, drawings=1, images=200).reached["logreg"][0].spread is None


def test_the_interval_covers_the_true_crossover() -> None:
    """95% nominal; where both factors are resampled a little more is expected (Owen 2007)."""
    covered, rounds = 0, 60
    for seed in range(rounds):
        accuracy = {"logreg": [0.75, 0.75, 0.75], "plan": [0.65, 0.7, 0.8]}
        curve = drawn_curve(accuracy, 5, 1200, seed)
        (one,) = efficiency.label_efficiency(curve, "accuracy", 200, seed).crossovers
        covered += (one.low or math.inf) <= 10**2.5 <= (one.high or math.inf)
    assert covered >= 0.9 * rounds


@pytest.mark.parametrize(("groups", "worded"), [(5, "5 groups; fewer than 6 cannot show"), (6, "stays ahead of")])
def test_too_few_groups_show_no_crossover(groups: int, worded: str) -> None:
    curve = drawn_curve({"logreg": [0.6, 0.7, 0.8], "plan": [0.5, 0.75, 0.9]}, 1, 600)
    group_of = {image_id: str(row // 2 % groups) for row, image_id in enumerate(curve.image_id)}
    found = efficiency.label_efficiency(curve, "accuracy", 100, 0, group_of)
    assert worded in crossover_sentence(found.crossovers[0], found)
