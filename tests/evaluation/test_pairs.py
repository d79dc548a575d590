import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from pipeline.evaluation import comparison, pairs
from tests.evaluation.examples import predictions

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@given(P_VALUES)
@settings(max_examples=60)
def test_holm_is_the_closed_test_of_bonferroni(p: list[float]) -> None:
    """A hypothesis is rejected if every set that holds it is, by its smallest p times its size (Marcus et al. 1976)."""
    sets = [one for size in range(1, len(p) + 1) for one in itertools.combinations(range(len(p)), size)]
    expected = [
        max(min(1, len(one) * min(p[k] for k in one)) for one in sets if number in one) for number in range(len(p))
    ]
    assert pairs.holm(p) == pytest.approx(expected)


def test_holm_of_a_worked_example_and_of_nothing() -> None:
    assert pairs.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert pairs.holm([]) == []


def test_every_pair_is_compared_once_on_the_same_images() -> None:
    runs = {name: predictions(seed) for seed, name in enumerate("abc")}
    samples = comparison.bootstrap(list(runs.values()), 200, 0).metrics["accuracy"]
    plain = [float((one.decision() == one.truth()).mean()) for one in runs.values()]
    found = pairs.compare(runs, samples, plain, "accuracy")
    assert [(one.first, one.second) for one in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    for one in found:
        gain = (one.only_first_right - one.only_second_right) / 60
        assert one.difference.value == pytest.approx(gain)
        assert one.bootstrap_low <= gain <= one.bootstrap_high
        assert one.difference.low <= gain <= one.difference.high
        assert one.p == pytest.approx(
            binomtest(one.only_first_right, one.only_first_right + one.only_second_right).pvalue
        )
    assert [one.holm_p for one in found] == pairs.holm([one.p for one in found])


def test_of_another_metric_the_interval_is_the_bootstraps() -> None:
    runs = {name: predictions(seed) for seed, name in enumerate("ab")}
    samples = comparison.bootstrap(list(runs.values()), 200, 0).metrics["macro_f1"]
    (found,) = pairs.compare(runs, samples, [0.6, 0.5], "macro_f1")
    assert (found.difference.low, found.difference.high) == (found.bootstrap_low, found.bootstrap_high)


def test_a_reversed_pair_has_the_reversed_difference() -> None:
    runs = {name: predictions(seed) for seed, name in enumerate("ab")}
    turned = dict(reversed(runs.items()))
    samples = comparison.bootstrap(list(runs.values()), 200, 0).metrics["accuracy"]
    (forth,) = pairs.compare(runs, samples, [0.6, 0.5], "accuracy")
    (back,) = pairs.compare(turned, samples[::-1], [0.5, 0.6], "accuracy")
    assert dataclasses.astuple(forth.reversed().difference) == pytest.approx(dataclasses.astuple(back.difference))
    assert (forth.reversed().first, forth.reversed().only_first_right) == (back.first, back.only_first_right)
    assert (forth.reversed().bootstrap_low, forth.p) == pytest.approx((back.bootstrap_low, back.p))
    assert forth.reversed().reversed() == forth


@pytest.mark.parametrize(("images", "discordant"), [(655, 64), (655, 5), (200, 60), (100, 3)])
def test_a_detectable_difference_is_shown_four_times_out_of_five(images: int, discordant: int) -> None:
    """By simulation with McNemar's exact test, which the formula approximates."""
    d = pairs.smallest_detectable(images, discordant / images)
    assert d is not None
    psi = max(discordant / images, d)
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(images, [(psi + d) / 2, (psi - d) / 2, 1 - psi], size=20_000)
    better, worse = drawn[:, 0], drawn[:, 1]
    p = 2 * binom.cdf(np.minimum(better, worse), better + worse, 0.5)
    assert abs(((p < pairs.LEVEL) & (better > worse)).mean() - pairs.POWER) < 0.05


def test_more_images_show_smaller_differences_and_too_few_show_none() -> None:
    found = [pairs.smallest_detectable(images, 0.1) for images in (50, 500, 5000)]
    assert found == sorted(found, reverse=True)  # type: ignore[type-var]
    assert pairs.smallest_detectable(3, 0) is None
