"""Paired differences of all runs on the same test images, corrected for their number, and the detectable difference."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.evaluation import clusters, comparison
from pipeline.evaluation.comparison import Estimate, Right
from pipeline.evaluation.groups import FEWEST_GROUPS, Units, student
from pipeline.evaluation.scoring import metrics
from pipeline.evaluation.scoring.predictions import Floats, Ints, Predictions

LEVEL, POWER = 0.05, 0.8
"""Of the test behind `detectable`: its two-sided level, and how often it shows a true difference."""
_QUANTILES = 1.959963984540054, 0.8416212335729143
"""Of the standard normal distribution at 1 - LEVEL / 2 and at POWER."""


@dataclass(frozen=True)
class Pair:
    """The first run minus the second on the same test images."""

    first: str
    second: str
    difference: Estimate
    """Of the metric, with the interval that the rule uses: Newcombe's for accuracy, else the bootstrap's."""
    bootstrap_low: float
    bootstrap_high: float
    """95% interval over resamples of the images, or groups."""
    only_first_right: int
    only_second_right: int
    p: float
    """Of the null hypothesis "equally accurate": McNemar's exact test, or with groups the sign-flip test over them."""
    holm_p: float
    """The same, corrected for all pairs of the verdict."""
    differing_groups: int | None = None
    """Groups in which one run gets more images right than the other; None without groups."""

    def reversed(self) -> "Pair":
        """Return the second run minus the first."""
        return replace(
            self,
            first=self.second,
            second=self.first,
            difference=_negated(self.difference),
            bootstrap_low=-self.bootstrap_high,
            bootstrap_high=-self.bootstrap_low,
            only_first_right=self.only_second_right,
            only_second_right=self.only_first_right,
        )


def _negated(estimate: Estimate) -> Estimate:
    return Estimate(0 - estimate.value, 0 - estimate.high, 0 - estimate.low)  # minus alone makes -0.0 of 0.0


def compare(
    runs: Mapping[str, Predictions],
    samples: Floats,
    plain: Sequence[float],
    metric: str,
    units: Units | None = None,
) -> list[Pair]:
    """Compare every run with every later one.

    Args:
        runs: R predictions of the same images.
        samples: the metric on resamples of the images, (R, B).
        plain: the metric itself, R values.
        metric: its name.
        units: which images belong together.

    """
    truth = next(iter(runs.values())).truth()
    units = units or Units.alone(len(truth))
    weight = metrics.weight(metric, truth)
    found = []
    numbered = list(enumerate(runs.items()))
    for (one, (first, mine)), (other, (second, theirs)) in itertools.combinations(numbered, 2):
        gain = plain[one] - plain[other]
        sampled = clusters.resampled_interval(gain, samples[one] - samples[other], units, weight)
        right = mine.right(), theirs.right()
        bounds = _accuracy_interval(*right, units) if metric == "accuracy" else sampled
        only_first, only_second, p = comparison.mcnemar(*right)
        pair = Pair(first, second, Estimate(gain, *bounds), *sampled, only_first, only_second, p, p)
        found.append(_test_over_groups(pair, clusters.gains(*right, units)) if units.grouped else pair)
    corrected = holm([pair.p for pair in found])
    return [replace(pair, holm_p=p) for pair, p in zip(found, corrected, strict=True)]


def _accuracy_interval(first: Right, second: Right, units: Units) -> tuple[float, float]:
    """Return the interval of a difference in accuracy; it does not shrink to nothing if two runs hardly differ."""
    if units.grouped:
        return clusters.paired_interval(first, second, units)
    return comparison.paired_accuracy_interval(first, second)


def _test_over_groups(pair: Pair, gained: Ints) -> Pair:
    """Replace the test over images by the test over groups."""
    return replace(pair, p=clusters.sign_flip_p(gained), differing_groups=int(np.count_nonzero(gained)))


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by the step-down procedure of Holm (1979, Scand. J. Statistics 6:65).

    The smallest is multiplied by their number, the next by one less, and so on; the order of the p-values is kept.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p)[order] * factors), 1)
    return adjusted.tolist()


def detectable(first: Predictions, second: Predictions, units: Units) -> float | None:
    """Return the smallest true difference in accuracy that the test would show with 80% power at the 5% level.

    The sample size formula of Connor (1987, Biometrics 43:207) for McNemar's test, solved for the difference, with the
    observed share of images that only one of the two runs gets right. With groups, for the effective number of images
    and with Student's quantiles.

    Returns:
        A difference between 0 and 1; None if there are too few images, or groups, to show any.

    """
    mine, theirs = first.right(), second.right()
    share = float((mine ^ theirs).mean())
    if not units.grouped:
        return smallest_detectable(len(mine), share)
    if units.number < FEWEST_GROUPS:
        return None
    effective = units.effective()
    quantiles = student(1 - LEVEL / 2, effective), student(POWER, effective)
    return smallest_detectable(clusters.effective_images(mine, theirs, units), share, quantiles)


def smallest_detectable(images: float, discordant: float, quantiles: tuple[float, float] = _QUANTILES) -> float | None:
    """Solve n d^2 = (q_level sqrt(psi) + q_power sqrt(psi - d^2))^2 for the difference d.

    Args:
        images: n, the number of independent images.
        discordant: the share of them that only one of two runs gets right. With a difference of d that share is at
            least d, so psi is the larger of the two.
        quantiles: at 1 - level / 2 and at the power.

    """
    level, power = quantiles

    def shown(d: float) -> bool:
        psi = max(discordant, d)
        return images * d**2 >= (level * math.sqrt(psi) + power * math.sqrt(psi - d**2)) ** 2

    if not shown(1.0):
        return None
    low, high = 0.0, 1.0  # bisection: the left side grows faster with d than the right side
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high
