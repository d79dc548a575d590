"""Intervals, tests and detectable differences for test images in groups, checked by simulation and by SciPy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from benchmarks import groups as simulation
from pipeline.evaluation import clusters, comparison, pairs
from pipeline.evaluation.groups import FEWEST_GROUPS, PLAIN, Units
from pipeline.evaluation.scoring.predictions import Predictions
from tests.evaluation.examples import predictions


def test_images_without_a_group_are_units_of_their_own() -> None:
    units = Units.by_group(["a", "b", "c", "d"], {"a": "one", "c": "one", "d": ""})
    assert units.of.tolist() == [0, 1, 0, 2]
    assert (units.number, units.grouped, units.size.tolist()) == (3, True, [2, 1, 1])
    assert not Units.by_group(["a", "b"], {"a": "one", "b": "two"}).grouped


def test_a_resample_takes_all_images_of_a_group_or_none() -> None:
    units = Units(np.array([0, 1, 0, 2, 1]))
    counts = units.counts(np.random.default_rng(0), 100)
    assert (counts[:, [0, 1]] == counts[:, [2, 4]]).all()
    assert set(counts[:, [0, 1, 3]].sum(axis=1)) == {3.0}


def test_without_groups_the_resamples_and_their_percentiles_are_those_of_images() -> None:
    counts = Units.alone(7).counts(np.random.default_rng(3), 20)
    expected = np.random.default_rng(3).multinomial(7, np.full(7, 1 / 7), 20)
    assert (counts == expected).all()
    assert Units.alone(7).percentiles() == PLAIN


def test_the_effective_number_of_groups_is_their_number_if_equal_and_near_one_if_one_dominates() -> None:
    assert Units(np.repeat(np.arange(8), 5)).effective() == pytest.approx(8)
    assert Units(np.array([0] * 99 + [1])).effective() == pytest.approx(1, abs=0.03)
    rare = Units(np.repeat(np.arange(20), 5))
    assert rare.effective((rare.of < 4).astype(float)) == pytest.approx(4)  # a class that four groups hold


def test_percentiles_go_further_out_the_fewer_groups_there_are() -> None:
    low = [Units(np.repeat(np.arange(number), 5)).percentiles()[0] for number in (2, 6, 20, 200, 5000)]
    assert low == sorted(low)
    assert low[-1] == pytest.approx(2.5, abs=0.01)


def test_with_few_groups_an_interval_is_at_least_as_wide_as_students() -> None:
    units, samples = Units(np.repeat(np.arange(4), 3)), np.resize([0.4, 0.6], 200)
    reach = t.ppf(0.975, 3) * math.sqrt(4 / 3) * 0.1
    assert clusters.resampled_interval(0.5, samples, units, None) == pytest.approx((0.5 - reach, 0.5 + reach))


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_the_sign_flip_test_is_the_share_of_all_ways_to_swap_the_runs_in_whole_groups(gained: list[int]) -> None:
    sums = [abs(sum(map(math.prod, zip(signs, gained, strict=True)))) for signs in
            itertools.product([1, -1], repeat=len(gained))]  # fmt: skip
    expected = np.mean([one >= abs(sum(gained)) for one in sums])
    assert clusters.sign_flip_p(np.array(gained)) == pytest.approx(expected)


@given(st.integers(0, 60), st.integers(0, 60))
def test_with_one_image_a_group_the_sign_flip_test_is_mcnemars(better: int, worse: int) -> None:
    expected = binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert clusters.sign_flip_p(np.array([1] * better + [-1] * worse + [0] * 3)) == pytest.approx(expected)


def test_the_normal_form_of_the_sign_flip_test_agrees_with_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gained = np.random.default_rng(0).integers(-3, 4, 3000) + np.arange(3000) // 2900
    exact = clusters.sign_flip_p(gained)
    monkeypatch.setattr(clusters, "_EXACT", 0)
    assert clusters.sign_flip_p(gained) == pytest.approx(exact, abs=0.005)


def test_fewer_than_six_groups_can_never_be_significant() -> None:
    assert clusters.sign_flip_p(np.full(FEWEST_GROUPS - 1, 30)) > pairs.LEVEL
    assert clusters.sign_flip_p(np.full(FEWEST_GROUPS, 30)) < pairs.LEVEL


def test_leaving_one_group_out_at_a_time_gives_the_variance_of_a_mean_of_equal_groups() -> None:
    units, means = Units(np.repeat(np.arange(12), 4)), np.random.default_rng(0).random(12)
    assert clusters.jackknife_variance(4 * means, units) == pytest.approx(means.var(ddof=1) / 12)


def test_the_interval_of_one_accuracy_is_wilsons_with_students_quantile_if_groups_do_not_matter() -> None:
    right = np.tile([True, True, False, True], 12)
    low, high = clusters.accuracy_interval(right, Units(np.repeat(np.arange(12), 4)))
    assert (low, high) == pytest.approx(comparison.score_interval(0.75, 48, t.ppf(0.975, 11)))


def test_two_patients_of_twenty_do_not_decide() -> None:
    """A plan that is better on all images of two groups of twenty and equal on the rest."""
    units = Units(np.repeat(np.arange(20), 30))
    first, second = np.ones(600, bool), units.of >= 2
    assert clusters.sign_flip_p(clusters.gains(first, second, units)) == pytest.approx(0.5)
    low, high = clusters.paired_interval(first, second, units)
    assert low < 0
    assert high > 0.25


def test_a_single_group_counts_as_one_image() -> None:
    right, worse = np.arange(50) < 40, np.arange(50) < 30
    units = Units(np.zeros(50, np.int64))
    low, high = clusters.accuracy_interval(right, units)
    assert low < 0.1
    assert high > 0.95
    low, high = clusters.paired_interval(right, worse, units)
    assert low < -0.5
    assert high > 0.5


def test_the_paired_interval_of_swapped_runs_is_mirrored() -> None:
    units, generator = Units(np.repeat(np.arange(9), 5)), np.random.default_rng(2)
    first, second = generator.random((2, 45)) < 0.8
    low, high = clusters.paired_interval(first, second, units)
    assert clusters.paired_interval(second, first, units) == pytest.approx((-high, -low))


def test_runs_that_never_differ_have_an_interval_as_wide_as_the_groups_are_few() -> None:
    right = np.random.default_rng(0).random(200) < 0.9
    few, many = (
        clusters.paired_interval(right, right, Units(np.repeat(np.arange(number), 200 // number)))
        for number in (10, 100)
    )
    assert few[0] < 3 * many[0] < 0 < 3 * many[1] < few[1]


def test_all_metrics_are_resampled_by_groups() -> None:
    """Copies of images add no information: with groups the spread is that of the originals, without it is not."""
    one = predictions(n=60)
    ten = np.repeat(np.arange(60), 10)
    copied = Predictions(
        list(map(str, range(600))), ["test"] * 600, [one.label[row] for row in ten], one.classes, one.probability[ten]
    )
    apart = comparison.bootstrap([one], 400, 0).metrics
    together = comparison.bootstrap([copied], 400, 0, units=Units(ten)).metrics
    alone = comparison.bootstrap([copied], 400, 0).metrics
    for name in apart:
        assert together[name] == pytest.approx(apart[name])
        assert alone[name].std() < 0.6 * apart[name].std()


@pytest.mark.parametrize(("groups", "correlation"), [(10, 0.0), (10, 0.3), (20, 0.6), (50, 0.1)])
def test_intervals_cover_the_truth_and_the_test_rejects_a_true_null_seldom(groups: int, correlation: float) -> None:
    """A small version of `make study ONLY=groups`; its bounds leave room for 300 simulations."""
    found = simulation.simulated(simulation.Case(groups, correlation, 0.85, 0.0, equal=False), 300)
    assert found.covered >= 0.93 - 0.025
    assert found.rejected <= 0.06 + 0.025


@pytest.mark.parametrize(("groups", "correlation"), [(20, 0.0), (20, 0.3), (80, 0.1)])
def test_the_difference_said_to_be_detectable_is_shown_about_four_times_out_of_five(
    groups: int, correlation: float
) -> None:
    assert simulation.power(groups, correlation, 600) == pytest.approx(pairs.POWER, abs=0.1)
