"""Intervals and tests of runs on test images that come in groups, with the group as the unit.

The functions take whether each run is right on each image, (N,) bool, and the Units.
"""

import math

import numpy as np
import numpy.typing as npt

from pipeline.evaluation import comparison
from pipeline.evaluation.comparison import Right
from pipeline.evaluation.groups import Units, student
from pipeline.evaluation.scoring.predictions import Floats

_EXACT = 200_000_000
"""Additions up to which the sign-flip test is exact, about a second; beyond that, its sum is nearly normal."""


def gains(first: Right, second: Right, units: Units) -> npt.NDArray[np.int64]:
    """Return how many more images of each unit the first run gets right than the second, (G,)."""
    return np.rint(units.sums(first.astype(np.float64) - second)).astype(np.int64)


def accuracy_interval(right: Right, units: Units) -> tuple[float, float]:
    """Return the 95% interval of one run's accuracy: Wilson's, for the effective number of images.

    Images whose accuracy p varies between groups count as p (1 - p) / variance independent images (Kish's design
    effect; Rao & Scott 1992, Biometrics 48:577), with Student's quantile for few groups.
    """
    p = float(right.mean())
    images = _effective_images(p, jackknife_variance(units.sums(right.astype(np.float64)), units), units)
    return comparison.score_interval(p, images, student(0.975, units.effective()))


def share_interval(hits: Right, images: Right, samples: Floats, units: Units) -> tuple[float, float]:
    """Return the 95% interval of the share of hits among some of the images; 0 to 1 if there are none.

    Wilson's: unlike percentiles, it does not shrink to nothing if all or none are hits. With groups, the wider of the
    percentiles and Wilson's for the effective number of images, as for one accuracy.

    Args:
        hits: (N,).
        images: (N,) which ones count.
        samples: (B,) the share in resamples; NaN where a resample has none of these images.
        units: which of the N images belong together.

    """
    if not images.any():
        return 0.0, 1.0
    share = float(hits[images].mean())
    if not units.grouped:
        low, high = comparison.score_interval(share, float(images.sum()))
    else:
        among = Units(np.unique(units.of[images], return_inverse=True)[1])
        low, high = accuracy_interval(hits[images], among)
        if np.isfinite(samples).any():
            percentiles = units.percentiles(images.astype(np.float64))
            low, high = wider((low, high), comparison.interval_where_defined(samples, percentiles))
    return max(min(low, share), 0.0), min(max(high, share), 1.0)  # rounding may pass these by a hair


def paired_interval(first: Right, second: Right, units: Units) -> tuple[float, float]:
    """Return the 95% interval of accuracy(first) - accuracy(second): Newcombe's, for the effective number of images."""
    quantile = student(0.975, units.effective())
    return comparison.paired_accuracy_interval(first, second, effective_images(first, second, units), quantile)


def resampled_interval(value: float, samples: Floats, units: Units, weight: Floats | None) -> tuple[float, float]:
    """Return the 95% interval of a metric, or of its difference between two runs, from resamples (B,).

    The percentiles of the resamples. With groups, the wider of these and `value` -+ Student's quantile times the
    standard deviation of the resamples: percentiles of few groups are too narrow.

    Args:
        value: on the test images themselves.
        samples: on the resamples; NaN where a resample does not define it.
        units: which images belong together.
        weight: (N,) what each image adds to the metric, as `metrics.weight` returns it.

    Raises:
        StateError: if most values are undefined.

    """
    percentiles = comparison.interval(samples, units.percentiles(weight))
    if not units.grouped:
        return percentiles
    effective = max(units.effective(weight), 2.0)
    reach = student(0.975, effective) * math.sqrt(effective / (effective - 1)) * float(np.nanstd(samples))
    return wider(percentiles, (value - reach, value + reach))


def wider(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Return the smallest interval that holds two overlapping intervals."""
    return min(one[0], other[0]), max(one[1], other[1])


def jackknife_variance(totals: Floats, units: Units) -> float:
    """Return the variance of sum(totals) / N, leaving one unit out at a time (Quenouille 1956): totals (G,)."""
    images, left = len(units.of), units.number
    if left < 2:
        return math.inf  # a single unit does not show how units differ
    without = (totals.sum() - totals) / (images - units.size)
    return float((left - 1) / left * ((without - without.mean()) ** 2).sum())


def _effective_images(p: float, variance: float, units: Units) -> float:
    """Return how many independent images give a share p this variance: at most N, and one per unit if p is 0 or 1."""
    if p in (0, 1) or units.number < 2:
        return float(units.number)
    return min(float(len(units.of)), p * (1 - p) / variance) if variance else float(len(units.of))


def sign_flip_p(gained: npt.NDArray[np.int64]) -> float:
    """Return the two-sided p of "neither run is better": how often swapping the runs in whole groups gives this gain.

    The randomisation test over groups, exact if the runs are exchangeable in every group (Canay, Romano & Shaikh 2017,
    Econometrica 85:1013). With one image per group it is McNemar's exact test.

    Args:
        gained: (G,) as `gains` returns it.

    """
    sizes = np.abs(gained[gained != 0])
    total, observed = int(sizes.sum()), abs(int(gained.sum()))
    if len(sizes) * total > _EXACT:
        from scipy.special import ndtr  # noqa: PLC0415

        return float(2 * ndtr(-observed / math.sqrt((sizes.astype(np.float64) ** 2).sum())))
    chance = np.zeros(total + 1)  # of each sum over the groups in which the first run wins
    chance[0] = 1
    for size in sizes.tolist():
        chance[size:] = (chance[size:] + chance[:-size]) / 2
        chance[:size] /= 2
    return min(float(chance[np.abs(2 * np.arange(total + 1) - total) >= observed].sum()), 1.0)


def effective_images(first: Right, second: Right, units: Units) -> float:
    """Return how many independent images would give the difference in accuracy the same variance.

    If the runs never differ, the effect of groups is unknown, and each group counts as one image.
    """
    images = len(units.of)
    difference = first.astype(np.float64) - second
    alone = float(difference.var()) / images
    if not alone or units.number < 2:
        return units.effective()
    return min(float(images), images * alone / max(jackknife_variance(units.sums(difference), units), 1e-300))
