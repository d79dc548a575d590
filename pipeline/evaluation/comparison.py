"""Uncertainty: the bootstrap, intervals, and the paired comparison of two runs on the same images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from pipeline.core.errors import StateError
from pipeline.evaluation.groups import PLAIN, Units
from pipeline.evaluation.scoring import breakdown, metrics
from pipeline.evaluation.scoring.metrics import Metric
from pipeline.evaluation.scoring.outcomes import BINS, Outcomes
from pipeline.evaluation.scoring.predictions import Floats, Ints, Predictions

Right = npt.NDArray[np.bool_]
_NORMAL = 1.959963984540054
"""The quantile of the standard normal distribution at 97.5%."""
CHUNK = 256
"""The most resamples in memory at once."""
_MOST_COUNTS = 2**23
"""The most counts in memory at once, 64 MB, if there are many images."""
_MOST_DRAWN = 250_000_000
"""The most images drawn in all resamples together, but never fewer than FEWEST_RESAMPLES resamples."""
FEWEST_RESAMPLES = 1000
_MOST_SORTED = 300_000_000
"""The most scores that all resamples of a rank metric sort; beyond, it is approximated (see scoring/ranks.py)."""
PAIRS = 4000
"""The most pairs of classes that get an interval: those with most images."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Resampled:
    """Metrics on resamples of the same images for every run: R runs, B resamples, K classes."""

    units: Units
    """The units that were drawn."""
    metrics: Mapping[str, Floats]
    """name -> (R, B)."""
    by_class: Mapping[str, Floats]
    """name -> (R, B, K); NaN where a resample has no image of the class, or none decided for it."""
    confusion: Sequence[tuple[Ints, Floats]]
    """For each run, the pairs (true, decided) that occur, (P, 2), and their share of the true class, (B, P)."""
    bins: Sequence[Floats]
    """For each run, the accuracy by bin of confidence, (B, BINS); NaN where a bin is empty."""


def bootstrap(
    runs: Sequence[Predictions],
    resamples: int,
    seed: int,
    extra: Mapping[str, Metric] | None = None,
    units: Units | None = None,
) -> Resampled:
    """Recompute every metric, and extra ones, on resamples of the test images.

    Nonparametric bootstrap over images (Efron & Tibshirani 1993, ch. 13), or over whole groups where there are units
    (Davison & Hinkley 1997, ch. 3.8). All runs use the same resamples, so that their differences are paired.
    """
    n, outcomes = len(runs[0].image_id), [Outcomes.of(run) for run in runs]
    units = units or Units.alone(n)
    if ranks_are_linear(n, outcomes[0].classes, resamples):
        outcomes = [one.linear() for one in outcomes]
    resamples, generator = affordable_resamples(n, resamples), np.random.default_rng(seed)
    all_metrics = {**metrics.METRICS, **(extra or {})}
    values = {name: np.empty((len(runs), resamples)) for name in all_metrics}
    by_class = {name: np.empty((len(runs), resamples, outcomes[0].classes)) for name in breakdown.BY_CLASS}
    pairs = [_most_frequent_pairs(one) for one in outcomes]
    confusion = [np.empty((resamples, len(some))) for some in pairs]
    bins = [np.empty((resamples, BINS)) for _ in outcomes]
    for chunk in tqdm(chunks(n, resamples), desc="bootstrap", unit="chunk", disable=None):
        counts = units.counts(generator, chunk.stop - chunk.start)
        for row, one in enumerate(outcomes):
            for name, metric in all_metrics.items():
                values[name][row, chunk] = metric(counts, one)
            for name, by_one in breakdown.BY_CLASS.items():
                by_class[name][row, chunk] = by_one(counts, one)
            by_class["precision"][row, chunk][one.by_class(counts)[1] == 0] = np.nan  # nothing decided says nothing
            confusion[row][chunk] = breakdown.confusion_shares(counts, one, pairs[row])
            images, right = breakdown.right_by_bin(counts, one)
            bins[row][chunk] = np.where(images > 0, right / np.maximum(images, 1), np.nan)
    return Resampled(units, values, by_class, list(zip(pairs, confusion, strict=True)), bins)


def chunks(n: int, resamples: int) -> list[slice]:
    """Divide the resamples of n images into parts that fit in memory."""
    size = max(1, min(CHUNK, _MOST_COUNTS // n))
    return [slice(start, min(start + size, resamples)) for start in range(0, resamples, size)]


def affordable_resamples(n: int, resamples: int) -> int:
    """Return how many resamples of n images are drawn: as many as asked for, unless there are very many images."""
    return min(resamples, max(FEWEST_RESAMPLES, _MOST_DRAWN // n))


def ranks_are_linear(n: int, classes: int, resamples: int) -> bool:
    """Return whether rank metrics of n images are approximated: sorting every resample would take too long."""
    return n * (1 if classes == 2 else classes) * affordable_resamples(n, resamples) > _MOST_SORTED


def _most_frequent_pairs(outcomes: Outcomes) -> Ints:
    """Return the pairs (true, decided) of classes that get an interval, sorted."""
    pairs, images = outcomes.pairs
    return pairs[np.sort(np.argsort(-images, kind="stable")[:PAIRS])]


def interval(samples: Floats, percentiles: tuple[float, float] = PLAIN) -> tuple[float, float]:
    """Return the central 95% of bootstrap values (percentile method).

    Args:
        samples: (B,).
        percentiles: the two that bound it, as `Units.percentiles` returns them.

    Raises:
        StateError: if most values are undefined, because there are too few images.

    """
    if not mostly_defined(samples):
        raise StateError("too few test images for an interval: most resamples hold a single class; add images")
    return interval_where_defined(samples, percentiles)


def mostly_defined(samples: Floats) -> bool:
    """Return whether at least half of the resamples define a value."""
    return bool(np.isfinite(samples).mean() >= 0.5)


def interval_where_defined(samples: Floats, percentiles: tuple[float, float] = PLAIN) -> tuple[float, float]:
    """Return the central 95% of the resamples that define a value."""
    low, high = np.nanpercentile(samples, percentiles)
    return float(low), float(high)


def _paired_table(first: Right, second: Right) -> tuple[int, int, int, int]:
    """Count the images that both get right, only the first, only the second, neither."""
    both, neither = first & second, ~first & ~second
    return int(both.sum()), int((first & ~second).sum()), int((~first & second).sum()), int(neither.sum())


def paired_accuracy_interval(
    first: Right, second: Right, images: float | None = None, z: float = _NORMAL
) -> tuple[float, float]:
    """Return the 95% interval of accuracy(first) - accuracy(second) on the same images.

    The hybrid score interval for paired proportions (Newcombe 1998, Statistics in Medicine 17:2635, method 10). Unlike
    a bootstrap interval, it does not shrink to nothing when two runs hardly differ on few images.

    Args:
        first: whether one run is right, (N,).
        second: whether the other is, (N,).
        images: the effective number of independent images; None for N.
        z: the quantile at 97.5%.

    """
    scale = 1.0 if images is None else images / len(first)
    both, only_first, only_second, neither = (scale * count for count in _paired_table(first, second))
    n = both + only_first + only_second + neither
    p1, p2 = (both + only_first) / n, (both + only_second) / n
    (low1, high1), (low2, high2) = score_interval(p1, n, z), score_interval(p2, n, z)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    cross = both * neither - only_first * only_second
    if cross > 0:  # the method's continuity correction of the correlation
        cross = max(cross - n / 2, 0.0)
    phi = cross / math.sqrt(margins) if margins else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0))

    return p1 - p2 - reach(p1 - low1, high2 - p2), p1 - p2 + reach(high1 - p1, p2 - low2)


def score_interval(p: float, n: float, z: float = _NORMAL) -> tuple[float, float]:
    """Return the 95% score interval of a share p of n (Wilson 1927)."""
    centre, spread = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return (centre - spread) / (1 + z**2 / n), (centre + spread) / (1 + z**2 / n)


def mcnemar(first: Right, second: Right) -> tuple[int, int, float]:
    """Test whether two runs, each right or not on the same images (N,), are equally accurate (McNemar 1947, binomial).

    Returns:
        How many images only the first gets right, how many only the second, and the two-sided p.

    """
    from scipy.special import bdtr  # noqa: PLC0415  # not for train and finetune; scipy.stats would take a second

    _, only_first, only_second, _ = _paired_table(first, second)
    p = 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5))
    return only_first, only_second, min(p, 1.0)
