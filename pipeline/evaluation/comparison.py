"""Uncertainty: resampled metrics, intervals, and the paired comparison of two runs on the same images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from pipeline.core.errors import StateError
from pipeline.evaluation.groups import PLAIN, Units
from pipeline.evaluation.scoring import metrics
from pipeline.evaluation.scoring.metrics import Judged, Metric
from pipeline.evaluation.scoring.predictions import Floats, Ints, Predictions

Right = npt.NDArray[np.bool_]
_NORMAL = 1.959963984540054
"""The quantile of the standard normal distribution at 97.5%."""
# Resamples handled at once at most: bounds the memory of a bootstrap to this many rows of counts.
CHUNK = 256
_COUNTS = 2**23
"""Counts held at once, 64 MB of them, where there are many images."""
_DRAWS = 250_000_000
"""Images drawn in all, where there are many, but for FEWEST resamples."""
FEWEST = 1000
_SORTED = 300_000_000
"""Scores sorted in all resamples of a rank metric; beyond, it is taken as linear (see scoring/ranks.py)."""
PAIRS = 4000
"""Pairs of classes that get an interval; those with most images, where more occur."""


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
    """What was resampled."""
    metrics: Mapping[str, Floats]
    """name -> (R, B)."""
    by_class: Mapping[str, Floats]
    """name -> (R, B, K)."""
    confusion: Sequence[tuple[Ints, Floats]]
    """For each run the pairs (true, decided) that occur, (P, 2), and the share of the true class, (B, P)."""
    bins: Sequence[Floats]
    """For each run the accuracy by bin of confidence, (B, BINS); NaN where a bin is empty."""


def bootstrap(
    runs: Sequence[Predictions],
    resamples: int,
    seed: int,
    extra: Mapping[str, Metric] | None = None,
    units: Units | None = None,
) -> Resampled:
    """Recompute every metric, and extra ones, on resamples of the test images, the same images for every run.

    Nonparametric bootstrap over images (Efron & Tibshirani 1993, ch. 13), over whole groups where there are units
    (Davison & Hinkley 1997, ch. 3.8); using the same resamples for all runs is what makes differences between runs
    paired.
    """
    n, judged = len(runs[0].image_id), [Judged.of(run) for run in runs]
    units = units or Units.alone(n)
    if is_linear(n, judged[0].classes, resamples):
        judged = [one.linear() for one in judged]
    resamples, generator = affordable(n, resamples), np.random.default_rng(seed)
    wanted = {**metrics.METRICS, **(extra or {})}
    values = {name: np.empty((len(runs), resamples)) for name in wanted}
    by_class = {name: np.empty((len(runs), resamples, judged[0].classes)) for name in metrics.BY_CLASS}
    pairs = [_commonest(one) for one in judged]
    confusion = [np.empty((resamples, len(some))) for some in pairs]
    bins = [np.empty((resamples, metrics.BINS)) for _ in judged]
    for chunk in tqdm(chunks(n, resamples), desc="bootstrap", unit="chunk", disable=None):
        counts = units.counts(generator, chunk.stop - chunk.start)
        for row, one in enumerate(judged):
            for name, metric in wanted.items():
                values[name][row, chunk] = metric(counts, one)
            for name, metric in metrics.BY_CLASS.items():
                by_class[name][row, chunk] = metric(counts, one)
            confusion[row][chunk] = metrics.confusion_shares(counts, one, pairs[row])
            images, right = metrics.right_by_bin(counts, one)
            bins[row][chunk] = np.where(images > 0, right / np.maximum(images, 1), np.nan)
    return Resampled(units, values, by_class, list(zip(pairs, confusion, strict=True)), bins)


def chunks(n: int, resamples: int) -> list[slice]:
    """Divide the resamples of n images into parts that are held at once."""
    size = max(1, min(CHUNK, _COUNTS // n))
    return [slice(start, min(start + size, resamples)) for start in range(0, resamples, size)]


def affordable(n: int, resamples: int) -> int:
    """Return how many resamples of n images are drawn: all that are asked for, unless there are very many images."""
    return min(resamples, max(FEWEST, _DRAWS // n))


def is_linear(n: int, classes: int, resamples: int) -> bool:
    """Tell whether rank metrics of n images are resampled as linear: sorting anew each time would take too long."""
    return n * (1 if classes == 2 else classes) * affordable(n, resamples) > _SORTED


def shortcuts(n: int, classes: int, resamples: int, *, ranked: bool = False) -> list[str]:
    """Say what was done otherwise because there are very many test images or classes.

    Args:
        n: test images.
        classes: K.
        resamples: that were asked for.
        ranked: whether some run's probabilities were too many to be held, and only their ranks were kept.

    """
    found = []
    if (fewer := affordable(n, resamples)) < resamples:
        found.append(
            f"Intervals come from {fewer:,} resamples, not from the {resamples:,} of compare.bootstrap: "
            f"with {n:,} test images more would take minutes and move a bound by little."
        )
    if ranked or is_linear(n, classes, resamples):
        found.append(
            "Intervals of ROC-AUC and average precision take both as linear in the resamples' counts (the infinitesimal"
            f" jackknife): {n:,} test images in {classes:,} classes are too many to be sorted anew for each."
        )
    return found


def _commonest(judged: Judged) -> Ints:
    """Return the pairs (true, decided) of classes that get an interval, sorted."""
    pairs, images = judged.pairs
    return pairs[np.sort(np.argsort(-images, kind="stable")[:PAIRS])]


def interval(samples: Floats, percentiles: tuple[float, float] = PLAIN) -> tuple[float, float]:
    """Return the central 95% of bootstrap values (percentile method).

    Args:
        samples: (B,).
        percentiles: that bound it, as `Units.percentiles` returns them.

    Raises:
        StateError: if the values are mostly undefined, for then there are too few images to say anything.

    """
    if not enough(samples):
        raise StateError("too few test images for an interval: most resamples hold a single class; add images")
    return interval_of_defined(samples, percentiles)


def enough(samples: Floats) -> bool:
    """Tell whether most resamples define a value at all."""
    return bool(np.isfinite(samples).mean() >= 0.5)


def describe(predictions: Predictions, resampled: Resampled, run: int) -> dict[str, Any]:
    """Return what one number cannot say of a run, each part with its interval: by class, confusion, calibration."""
    judged, classes = Judged.of(predictions), predictions.classes
    units, of_class = resampled.units, {"recall": judged.truth, "precision": judged.decided}

    def within(chosen: npt.NDArray[np.bool_]) -> tuple[float, float]:
        return units.percentiles(chosen.astype(np.float64))

    once = np.ones((1, len(judged.truth)))
    images, confidence, right = (part[0] for part in metrics.calibration_bins(once, judged))
    pairs, shares = resampled.confusion[run]
    plain = metrics.confusion_shares(once, judged, pairs)[0]
    by_class = {name: metric(once, judged)[0] for name, metric in metrics.BY_CLASS.items()}
    of_true = {k: within(judged.truth == k) for k in np.unique(pairs[:, 0]).tolist()}
    every, of_each = judged.pairs
    images_of = dict(zip(map(tuple, every.tolist()), of_each.tolist(), strict=True))
    cells = [images_of[pair] for pair in map(tuple, pairs.tolist())]
    left_out = {"pairs": len(every) - len(pairs), "images": len(judged.truth) - sum(cells)}
    return {
        "by_class": {
            classes[k]: {
                name: Estimate(
                    float(of_classes[k]),
                    *interval(resampled.by_class[name][run, :, k], within(of_class[name] == k)),
                )
                for name, of_classes in by_class.items()
            }
            for k in np.unique(judged.truth).tolist()  # of a class without images there is nothing to say
        },
        "confusion": [
            {
                "true": classes[true],
                "decided": classes[decided],
                "images": cells[place],
                "share": Estimate(float(plain[place]), *interval(shares[:, place], of_true[true])),
            }
            for place, (true, decided) in enumerate(pairs.tolist())
        ],
        **({"confusion_left_out": left_out} if left_out["pairs"] else {}),
        "calibration": [
            {
                "images": int(images[number]),
                "confidence": float(confidence[number] / images[number]),
                "accuracy": Estimate(
                    float(right[number] / images[number]),
                    *interval_of_defined(resampled.bins[run][:, number], within(judged.bin == number)),
                ),
            }
            for number in np.flatnonzero(images)
        ],
    }


def interval_of_defined(samples: Floats, percentiles: tuple[float, float] = PLAIN) -> tuple[float, float]:
    """Return the central 95% of the resamples in which a value is defined at all."""
    low, high = np.nanpercentile(samples, percentiles)
    return float(low), float(high)


def _paired_table(first: Right, second: Right) -> tuple[int, int, int, int]:
    """Count the images that both get right, only the first, only the second, neither."""
    both, neither = first & second, ~first & ~second
    return int(both.sum()), int((first & ~second).sum()), int((~first & second).sum()), int(neither.sum())


def paired_accuracy_interval(
    first: Right, second: Right, worth: float | None = None, z: float = _NORMAL
) -> tuple[float, float]:
    """Return the 95% interval of accuracy(first) - accuracy(second) on the same images.

    The hybrid score interval for paired proportions (Newcombe 1998, Statistics in Medicine 17:2635, method 10). Unlike
    a bootstrap it does not shrink to nothing when the two runs hardly differ on few images.

    Args:
        first: whether one run is right, (N,).
        second: whether the other is, (N,).
        worth: how many independent images know as much as these N; None for N.
        z: the quantile at 97.5%.

    """
    scale = 1.0 if worth is None else worth / len(first)
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
    """Compare exactly on which of the same images two runs are right (McNemar 1947, binomial form): (N,) each.

    Returns:
        the images that only the first gets right, those that only the second gets right, and the two-sided p.

    """
    from scipy.special import bdtr  # noqa: PLC0415  # not for train and finetune; scipy.stats would take a second

    _, only_first, only_second, _ = _paired_table(first, second)
    p = 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5))
    return only_first, only_second, min(p, 1.0)
