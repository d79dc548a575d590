"""All paired differences of runs on the same test images, corrected for how many they are, and what could be shown."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.evaluation import comparison
from pipeline.evaluation.comparison import Estimate
from pipeline.evaluation.predictions import Floats, Predictions

LEVEL, POWER = 0.05, 0.8
"""Of the test that `detectable` speaks of: two-sided, and how often it would show the difference."""
_QUANTILES = 1.959963984540054, 0.8416212335729143
"""Of the standard normal distribution at 1 - LEVEL / 2 and at POWER."""


@dataclass(frozen=True)
class Pair:
    """A run minus another on the same test images."""

    first: str
    second: str
    difference: Estimate
    """Of the metric, with the interval that the rule looks at: Newcombe's for accuracy, else the bootstrap's."""
    bootstrap_low: float
    bootstrap_high: float
    """95% interval over resamples of the images, the same for both."""
    only_first_right: int
    only_second_right: int
    mcnemar_p: float
    holm_p: float
    """McNemar's p corrected for all pairs of the verdict."""

    def turned(self) -> "Pair":
        """Return the same as second minus first."""
        return replace(
            self,
            first=self.second,
            second=self.first,
            difference=_turned(self.difference),
            bootstrap_low=-self.bootstrap_high,
            bootstrap_high=-self.bootstrap_low,
            only_first_right=self.only_second_right,
            only_second_right=self.only_first_right,
        )


def _turned(estimate: Estimate) -> Estimate:
    return Estimate(0 - estimate.value, 0 - estimate.high, 0 - estimate.low)  # minus alone makes -0.0 of 0.0


def compare(runs: Mapping[str, Predictions], samples: Floats, plain: Sequence[float], metric: str) -> list[Pair]:
    """Compare every run with every later one.

    Args:
        runs: R predictions of the same images.
        samples: the metric on resamples of the images, (R, B).
        plain: the metric itself, R values.
        metric: which it is.

    """
    found = []
    numbered = list(enumerate(runs.items()))
    for (one, (first, mine)), (other, (second, theirs)) in itertools.combinations(numbered, 2):
        low, high = comparison.interval(samples[one] - samples[other])
        bounds = comparison.paired_accuracy_interval(mine, theirs) if metric == "accuracy" else (low, high)
        difference = Estimate(plain[one] - plain[other], *bounds)
        only_first, only_second, p = comparison.mcnemar(mine, theirs)
        found.append(Pair(first, second, difference, low, high, only_first, only_second, p, p))
    corrected = holm([pair.mcnemar_p for pair in found])
    return [replace(pair, holm_p=p) for pair, p in zip(found, corrected, strict=True)]


def holm(p: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for their number, so that any of them below a level is wrong at most that often.

    The step-down procedure of Holm (1979, Scandinavian Journal of Statistics 6:65): the smallest is multiplied by how
    many there are, the next by one less, and none may be below one that was smaller.
    """
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p)[order] * factors), 1)
    return adjusted.tolist()


def detectable(images: int, discordant: int) -> float | None:
    """Return the smallest true difference in accuracy that so many test images would mostly have shown.

    "Mostly" is four times out of five with McNemar's test at the two-sided 5% level, for two runs of which only one is
    right on a share psi of the images: the sample size of Connor (1987, Biometrics 43:207),
    n d^2 = (z_0.975 sqrt(psi) + z_0.8 sqrt(psi - d^2))^2, solved for d. Runs that differ by d decide at least that
    share of the images differently, so psi is at least d.

    Args:
        images: test images, n.
        discordant: how many of them only one of the two runs gets right.

    Returns:
        a difference between 0 and 1; None if these are too few images to show any.

    """

    def shown(d: float) -> bool:
        psi = max(discordant / images, d)
        return images * d**2 >= (_QUANTILES[0] * math.sqrt(psi) + _QUANTILES[1] * math.sqrt(psi - d**2)) ** 2

    if not shown(1.0):
        return None
    low, high = 0.0, 1.0  # the left side grows with d faster than the right one
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high
