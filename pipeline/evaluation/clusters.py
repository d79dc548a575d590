"""Two runs on the same images, which come in groups: interval, test and what they could show, with groups as the unit.

All take whether each run is right, (N,) bool, and the Units.
"""

import math

import numpy as np
import numpy.typing as npt

from pipeline.evaluation import comparison
from pipeline.evaluation.comparison import Right
from pipeline.evaluation.groups import Units, student
from pipeline.evaluation.scoring.predictions import Floats

_EXACT = 200_000_000
"""Additions up to which the sign-flip test is exact, about a second; beyond, its sum is as good as normal."""


def gains(first: Right, second: Right, units: Units) -> npt.NDArray[np.int64]:
    """Return how many more images of each unit the first run gets right, (G,)."""
    return np.rint(units.sums(first.astype(np.float64) - second)).astype(np.int64)


def accuracy_interval(right: Right, units: Units) -> tuple[float, float]:
    """Return the 95% interval of one run's accuracy: Wilson's, of as many images as the groups are worth.

    n images whose accuracy varies between groups are worth p (1 - p) / variance (Kish's design effect; Rao & Scott
    1992, Biometrics 48:577), with Student's quantile for few groups.
    """
    p = float(right.mean())
    worth = _worth(p, jackknife_variance(units.sums(right.astype(np.float64)), units), units)
    return comparison.score_interval(p, worth, student(0.975, units.effective()))


def paired_interval(first: Right, second: Right, units: Units) -> tuple[float, float]:
    """Return the 95% interval of accuracy(first) - accuracy(second).

    Newcombe's, of as many images as the groups are worth, as for one run.
    """
    quantile = student(0.975, units.effective())
    return comparison.paired_accuracy_interval(first, second, images_worth(first, second, units), quantile)


def sampled_interval(value: float, samples: Floats, units: Units, weight: Floats | None) -> tuple[float, float]:
    """Return the 95% interval of a metric, or of its difference between two runs, from resamples (B,) of it.

    The percentiles; with groups the wider of these and `value` -+ Student's quantile times the resamples' standard
    deviation, for the percentiles of few groups miss what none of these few show.

    Args:
        value: of the images as they are.
        samples: of the resamples; NaN where one does not define it.
        units: which images belong together.
        weight: (N,) what each image adds to the metric, as `metrics.weight` returns it.

    Raises:
        StateError: if the values are mostly undefined.

    """
    percentiles = comparison.interval(samples, units.percentiles(weight))
    if not units.grouped:
        return percentiles
    effective = max(units.effective(weight), 2.0)
    reach = student(0.975, effective) * math.sqrt(effective / (effective - 1)) * float(np.nanstd(samples))
    return wider(percentiles, (value - reach, value + reach))


def wider(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Return the interval from the lower of two lower ends to the higher of two higher ones."""
    return min(one[0], other[0]), max(one[1], other[1])


def jackknife_variance(totals: Floats, units: Units) -> float:
    """Return the variance of sum(totals) / N, leaving one unit out at a time (Quenouille 1956): totals (G,)."""
    images, left = len(units.of), units.number
    if left < 2:
        return math.inf  # a single unit tells nothing of how units differ
    without = (totals.sum() - totals) / (images - units.size)
    return float((left - 1) / left * ((without - without.mean()) ** 2).sum())


def _worth(p: float, variance: float, units: Units) -> float:
    """Return how many independent images would know a share p as well: at most N, and one a group where p is 0 or 1."""
    if p in (0, 1) or units.number < 2:
        return float(units.number)
    return min(float(len(units.of)), p * (1 - p) / variance) if variance else float(len(units.of))


def sign_flip_p(gained: npt.NDArray[np.int64]) -> float:
    """Return the two-sided p of "neither run is better": how often swapping the runs in whole groups gives such a gain.

    The randomisation test over groups, exact if the runs could be swapped in any group (Canay, Romano & Shaikh 2017,
    Econometrica 85:1013); with one image a group it is McNemar's exact test.

    Args:
        gained: (G,) as `gains` returns it.

    """
    sizes = np.abs(gained[gained != 0])
    total, observed = int(sizes.sum()), abs(int(gained.sum()))
    if len(sizes) * total > _EXACT:
        from scipy.special import ndtr  # noqa: PLC0415

        return float(2 * ndtr(-observed / math.sqrt((sizes.astype(np.float64) ** 2).sum())))
    chance = np.zeros(total + 1)  # of each sum over the groups in which the first run is taken to have won
    chance[0] = 1
    for size in sizes.tolist():
        chance[size:] = (chance[size:] + chance[:-size]) / 2
        chance[:size] /= 2
    return min(float(chance[np.abs(2 * np.arange(total + 1) - total) >= observed].sum()), 1.0)


def images_worth(first: Right, second: Right, units: Units) -> float:
    """Return how many independent images would know the difference in accuracy as well as these.

    Where the runs never differ nothing tells how much groups matter, and every image is taken to repeat its group.
    """
    images = len(units.of)
    difference = first.astype(np.float64) - second
    alone = float(difference.var()) / images
    if not alone or units.number < 2:
        return units.effective()
    return min(float(images), images * alone / max(jackknife_variance(units.sums(difference), units), 1e-300))
