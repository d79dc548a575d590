import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from pipeline.evaluation import clusters, comparison, details
from pipeline.evaluation.groups import Units
from pipeline.evaluation.scoring.predictions import Predictions
from pipeline.verdict.wording import notes
from tests.evaluation.examples import predictions


def test_the_bootstrap_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        right = generator.random(120) < 0.8
        p_first = np.where((np.arange(120) % 2 == 0) == right, 0.9, 0.1)
        probability = np.column_stack([p_first, 1 - p_first])
        one = Predictions(list(map(str, range(120))), ["test"] * 120, ["a", "b"] * 60, ["a", "b"], probability)
        low, high = comparison.interval(comparison.bootstrap([one], 300, 0).metrics["accuracy"][0])
        covered += low <= 0.8 <= high
    assert 0.90 <= covered / 200 <= 0.98


def test_a_resample_without_some_class_still_counts_towards_the_roc_auc() -> None:
    one = predictions(n=24, classes=12)
    samples = comparison.bootstrap([one], 200, 0).metrics["roc_auc"][0]
    assert np.isfinite(samples).all()
    assert samples.std() > 0


@pytest.mark.parametrize(("n", "both", "gain"), [(30, 0.8, 0.05), (30, 0.9, 0.0), (120, 0.8, 0.03), (12, 0.95, 0.0)])
def test_the_paired_interval_covers_the_true_difference_also_on_few_images(n: int, both: float, gain: float) -> None:
    """Nominal 95%; the bootstrap covers far less, as it shrinks to nothing if no image is decided differently."""
    generator = np.random.default_rng(0)
    chances = [both, 0.03 + gain, 0.03, 1 - both - 0.06 - gain] if both < 0.9 else [both, 0.02, 0.02, 0.96 - both]
    covered = 0
    for _ in range(600):
        drawn = generator.choice(4, size=n, p=chances)  # both right, only first, only second, neither
        first, second = (np.isin(drawn, right) for right in ([0, 1], [0, 2]))
        low, high = comparison.paired_accuracy_interval(first, second)
        covered += low <= chances[1] - chances[2] <= high
    assert covered / 600 >= 0.94


def test_the_paired_interval_does_not_collapse_and_is_mirrored_for_swapped_runs() -> None:
    perfect = np.ones(10, dtype=bool)
    low, high = comparison.paired_accuracy_interval(perfect, perfect)
    assert (low, high) == (pytest.approx(-0.2775, abs=1e-4), pytest.approx(0.2775, abs=1e-4))  # Wilson of 10 out of 10
    one, two = predictions(0).right(), predictions(1).right()
    forth, back = comparison.paired_accuracy_interval(one, two), comparison.paired_accuracy_interval(two, one)
    assert forth == pytest.approx((-back[1], -back[0]))


def test_all_runs_see_the_same_resamples() -> None:
    one = predictions()
    samples = comparison.bootstrap([one, one], 50, seed=3)
    assert all((values[0] == values[1]).all() for values in samples.metrics.values())
    np.testing.assert_array_equal(samples.by_class["recall"][0], samples.by_class["recall"][1])


def test_the_breakdown_of_a_run_has_intervals() -> None:
    one = predictions(n=90)
    detail = details.describe(one, comparison.bootstrap([one], 100, 0), 0)
    assert set(detail["by_class"]) == {"c0", "c1", "c2"}
    assert sum(cell["images"] for cell in detail["confusion"]) == 90
    assert sum(part["images"] for part in detail["calibration"]) == 90
    estimates = [
        *(one for by_name in detail["by_class"].values() for one in by_name.values()),
        *(cell["share"] for cell in detail["confusion"]),
        *(part["accuracy"] for part in detail["calibration"]),
    ]
    assert all(0 <= one.low <= one.value <= one.high <= 1 for one in estimates)


def decided(truth: str, decision: str, groups: int = 0) -> dict:
    """Return the details of a run on one image a letter; the images are dealt to groups in turn, if there are any."""
    probability = np.array([[0.9, 0.1] if one == "a" else [0.1, 0.9] for one in decision])
    ids = [str(number) for number in range(len(truth))]
    one = Predictions(ids, ["test"] * len(truth), list(truth), ["a", "b"], probability)
    units = Units(np.arange(len(truth)) % groups) if groups else None
    return details.describe(one, comparison.bootstrap([one], 200, 0, units=units), 0)


@pytest.mark.parametrize(("decisions", "hits"), [("a" * 13, 13), ("b" * 13, 0), ("a" * 9 + "b" * 4, 9)])
def test_the_interval_of_a_share_of_one_class_is_wilsons_also_if_all_or_none_are_right(
    decisions: str, hits: int
) -> None:
    detail = decided("a" * 13 + "b" * 27, decisions + "b" * 27)
    expected = binomtest(hits, 13).proportion_ci(method="wilson")
    recall = detail["by_class"]["a"]["recall"]
    assert (recall.value, recall.low, recall.high) == pytest.approx((hits / 13, expected.low, expected.high))
    shares = {(cell["true"], cell["decided"]): cell["share"] for cell in detail["confusion"]}
    if hits:
        assert shares["a", "a"] == recall
        precision, expected = detail["by_class"]["a"]["precision"], binomtest(hits, hits).proportion_ci(method="wilson")
        assert (precision.low, precision.high) == pytest.approx((expected.low, expected.high))
    (confident,) = detail["calibration"]
    expected = binomtest(hits + 27, 40).proportion_ci(method="wilson")
    assert (confident["accuracy"].low, confident["accuracy"].high) == pytest.approx((expected.low, expected.high))


def test_the_precision_of_a_class_that_is_never_decided_is_unknown() -> None:
    precision = decided("aaabbb", "bbbbbb")["by_class"]["a"]["precision"]
    assert (precision.value, precision.low, precision.high) == (0, 0, 1)


def test_in_groups_the_interval_of_a_share_counts_groups_and_ignores_resamples_without_images() -> None:
    truth = "a" * 16 + "b" * 16
    detail = decided(truth, truth, groups=8)
    low, high = clusters.accuracy_interval(np.ones(16, dtype=bool), Units(np.arange(16) % 8))
    for one in (one for by_name in detail["by_class"].values() for one in by_name.values()):
        assert (one.low, one.high) == pytest.approx((low, high))
    assert low < binomtest(16, 16).proportion_ci(method="wilson").low
    rare = decided("a" * 15 + "b", "a" * 15 + "b", groups=8)["by_class"]["b"]["precision"]
    assert (rare.value, rare.high) == (1, 1)
    assert 0 < rare.low < 0.25


@given(st.integers(0, 500), st.integers(1, 500))
@settings(max_examples=20)
def test_mcnemar_is_the_exact_binomial_of_the_discordant_images(first: int, second: int) -> None:
    one, two = predictions(first), predictions(second + 1000)
    right_one, right_two = one.decision() == one.truth(), two.decision() == two.truth()
    only_first, only_second, p = comparison.mcnemar(right_one, right_two)
    assert (only_first, only_second) == ((right_one > right_two).sum(), (right_two > right_one).sum())
    tail = 2 * binom.cdf(min(only_first, only_second), only_first + only_second, 0.5)
    assert p == pytest.approx(min(1.0, tail))


def test_mcnemar_of_equal_decisions_is_one() -> None:
    assert comparison.mcnemar(predictions().right(), predictions().right()) == (0, 0, 1.0)


def test_resamples_of_few_images_are_one_multinomial_stream() -> None:
    drawn = Units.alone(60).counts(np.random.default_rng(3), 256)
    np.testing.assert_array_equal(drawn, np.random.default_rng(3).multinomial(60, np.full(60, 1 / 60), size=256))
    assert comparison.chunks(60, 600) == [slice(0, 256), slice(256, 512), slice(512, 600)]
    assert (comparison.affordable_resamples(60, 5000), comparison.ranks_are_linear(60, 2, 5000)) == (5000, False)


def test_resamples_of_many_images_are_fewer_fit_in_memory_and_are_noted() -> None:
    n = 250_000
    counts = Units.alone(n).counts(np.random.default_rng(0), 2)
    assert (counts.sum(axis=1) == n).all()
    assert counts.var() == pytest.approx(1, abs=0.02)
    assert max(part.stop - part.start for part in comparison.chunks(n, 1000)) * n * 8 <= 2**26
    fewer, linear = notes.of_approximations(n, 1000, 5000)
    assert fewer.startswith("Intervals come from 1,000 resamples instead of the 5,000 of compare.bootstrap")
    assert linear.startswith("Intervals of ROC-AUC and average precision use a linear approximation")
    assert notes.of_approximations(656, 2, 5000) == []
    assert notes.of_approximations(656, 2, 5000, ranked=True) == [
        linear.replace("250,000", "656").replace("1,000", "2")
    ]


def test_of_very_many_pairs_of_classes_the_most_frequent_get_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "PAIRS", 4)
    one = predictions(n=90)
    detail = details.describe(one, comparison.bootstrap([one], 100, 0), 0)
    images = np.bincount(3 * one.truth() + one.decision(), minlength=9)
    assert sorted(cell["images"] for cell in detail["confusion"]) == sorted(images)[-4:]
    left = detail["confusion_left_out"]
    assert left == {"pairs": np.count_nonzero(images) - 4, "images": 90 - sum(sorted(images)[-4:])}
