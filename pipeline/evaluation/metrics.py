"""Predictions, metrics, and the paired comparison of two sets of predictions on the same images."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pipeline import stamps
from pipeline.atomic import replacing
from pipeline.errors import StateError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Resamples handled at once: bounds the memory of a bootstrap to this many rows of counts.
_CHUNK = 256


@dataclass(frozen=True)
class Predictions:
    """What a head or a fine-tuned network says of the validation and test images; N rows, K classes."""

    image_id: Sequence[str]
    split: Sequence[str]
    label: Sequence[str]
    classes: Sequence[str]
    """Sorted; the order of the columns of `probability`."""
    probability: Floats
    """(N, K); rows sum to one."""

    def of(self, split: str) -> "Predictions":
        """Return the rows of one split."""
        rows = [row for row, name in enumerate(self.split) if name == split]
        return Predictions(
            [self.image_id[row] for row in rows],
            [split] * len(rows),
            [self.label[row] for row in rows],
            self.classes,
            self.probability[rows],
        )

    def truth(self) -> Ints:
        """Return the true class of every row as an index into `classes`, (N,)."""
        index = {name: number for number, name in enumerate(self.classes)}
        return np.array([index[label] for label in self.label], dtype=np.int64)

    def decision(self) -> Ints:
        """Return the most probable class of every row, (N,); the first of equals."""
        return np.asarray(self.probability.argmax(axis=1), dtype=np.int64)


def path_of(backbone: str, run: str) -> Path:
    """Return where the predictions of a head or plan lie."""
    return Path("predictions") / backbone / f"{run}.parquet"


def write(path: Path, predictions: Predictions) -> None:
    """Write predictions as Parquet: image_id, split, label, p_<class> ..."""
    columns: dict[str, Any] = {name: list(getattr(predictions, name)) for name in ("image_id", "split", "label")}
    for number, name in enumerate(predictions.classes):
        columns[f"p_{name}"] = predictions.probability[:, number]
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")


def read(path: Path, stamp: stamps.Stamp) -> Predictions:
    """Read predictions whose bytes are the stamped ones; StateError otherwise."""
    table = pq.read_table(BytesIO(stamps.check(path, stamp)))
    names = [name for name in table.column_names if name.startswith("p_")]
    probability = np.column_stack([table[name].to_numpy() for name in names]).astype(np.float64)
    if not np.isfinite(probability).all():
        raise StateError(f"{path}: holds probabilities that are not numbers; run `dvc repro --force`")
    return Predictions(
        table["image_id"].to_pylist(),
        table["split"].to_pylist(),
        table["label"].to_pylist(),
        [name.removeprefix("p_") for name in names],
        probability,
    )


# --- Metrics -----------------------------------------------------------------------------------------------------
#
# Every metric is computed from how often each row counts: all ones give the plain value, multinomial counts give a
# bootstrap resample. So one formula serves both, and B resamples cost one matrix product instead of B calls.
# Shapes: counts (B, N), truth and decision (N,), probability (N, K) -> (B,).

Metric = Callable[[Floats, Ints, Floats], Floats]


def _accuracy(counts: Floats, truth: Ints, probability: Floats) -> Floats:
    right = (probability.argmax(axis=1) == truth).astype(np.float64)
    return np.asarray(counts @ right / counts.sum(axis=1))


def _by_class(counts: Floats, truth: Ints, probability: Floats) -> tuple[Floats, Floats, Floats]:
    """Count per class how many are of it, how many are taken for it, and how many of both: three of (B, K)."""
    unit = np.eye(probability.shape[1])
    actual, decided = unit[truth], unit[probability.argmax(axis=1)]
    return counts @ actual, counts @ decided, counts @ (actual * decided)


def _mean_over_present(values: Floats, weight: Floats) -> Floats:
    """Mean over the classes that occur in a resample: (B, K), (B, K) -> (B,)."""
    present = weight > 0
    return np.asarray(np.where(present, values, 0).sum(axis=1) / present.sum(axis=1))


def _balanced_accuracy(counts: Floats, truth: Ints, probability: Floats) -> Floats:
    actual, _, hits = _by_class(counts, truth, probability)
    return _mean_over_present(hits / np.maximum(actual, 1), actual)


def _macro_f1(counts: Floats, truth: Ints, probability: Floats) -> Floats:
    actual, decided, hits = _by_class(counts, truth, probability)
    return _mean_over_present(2 * hits / np.maximum(actual + decided, 1), actual + decided)


def _roc_auc(counts: Floats, truth: Ints, probability: Floats) -> Floats:
    """Area under the ROC curve; for more than two classes the unweighted mean of one against the rest.

    The mean is over the classes that occur in a resample, as in the other macro metrics; NaN if there is only one.
    """
    classes = probability.shape[1]
    if classes == 2:
        return _auc_of_one(counts, truth == 1, probability[:, 1])
    areas = np.column_stack([_auc_of_one(counts, truth == k, probability[:, k]) for k in range(classes)])
    defined = np.isfinite(areas).sum(axis=1)
    return np.asarray(np.where(defined > 0, np.nansum(areas, axis=1) / np.maximum(defined, 1), np.nan))


def _auc_of_one(counts: Floats, positive: npt.NDArray[np.bool_], score: Floats) -> Floats:
    """P(score of a positive > score of a negative) + P(equal) / 2, the Mann-Whitney form (Hanley & McNeil 1982)."""
    order = np.argsort(score, kind="stable")
    _, start = np.unique(score[order], return_index=True)
    ordered, is_positive = counts[:, order], positive[order]
    positives = np.add.reduceat(ordered * is_positive, start, axis=1)  # (B, distinct scores)
    negatives = np.add.reduceat(ordered * ~is_positive, start, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    wins = (positives * (below + negatives / 2)).sum(axis=1)
    return np.asarray(np.where(pairs > 0, wins / np.maximum(pairs, 1), np.nan))


METRICS: Mapping[str, Metric] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "macro_f1": _macro_f1,
    "roc_auc": _roc_auc,
}


def value(metric: str, truth: Ints, probability: Floats) -> float:
    """Return a metric's plain value: truth (N,), probability (N, K)."""
    return float(METRICS[metric](np.ones((1, len(truth))), truth, probability)[0])


def score(predictions: Predictions) -> dict[str, float]:
    """Return every metric's plain value; NaN becomes StateError, for it means a class without images."""
    truth = predictions.truth()
    values = {name: value(name, truth, predictions.probability) for name in METRICS}
    if bad := [name for name in METRICS if not np.isfinite(values[name])]:
        raise StateError(f"{bad[0]} is undefined: the {predictions.split[0]} split lacks images of some class")
    return values


def bootstrap(runs: Sequence[Predictions], resamples: int, seed: int) -> dict[str, Floats]:
    """Recompute every metric on resamples of the test images, the same images for every run.

    Nonparametric bootstrap over images (Efron & Tibshirani 1993, ch. 13); using the same resamples for all runs is
    what makes differences between runs paired.

    Returns:
        metric name -> (len(runs), resamples).

    Raises:
        StateError: if the runs were not made on the same images.

    """
    require_same_images(runs)
    n = len(runs[0].image_id)
    truth = runs[0].truth()
    generator = np.random.default_rng(seed)
    values = {name: np.empty((len(runs), resamples)) for name in METRICS}
    for start in tqdm(range(0, resamples, _CHUNK), desc="bootstrap", unit="chunk", disable=None):
        chunk = slice(start, min(start + _CHUNK, resamples))
        counts = generator.multinomial(n, np.full(n, 1 / n), size=chunk.stop - chunk.start).astype(np.float64)
        for name, metric in METRICS.items():
            for row, run in enumerate(runs):
                values[name][row, chunk] = metric(counts, truth, run.probability)
    return values


def require_same_images(runs: Sequence[Predictions]) -> None:
    """Raise StateError unless all runs predict the same images, with the same labels, in the same order."""
    first = runs[0]
    for other in runs[1:]:
        if list(other.image_id) != list(first.image_id) or list(other.label) != list(first.label):
            raise StateError(
                f"predictions on different images ({len(first.image_id)} and {len(other.image_id)} rows): "
                "a paired comparison needs the same ones; run `dvc repro`"
            )


def interval(samples: Floats) -> tuple[float, float]:
    """Return the central 95% of bootstrap values (percentile method).

    Raises:
        StateError: if the values are mostly undefined, for then there are too few images to say anything.

    """
    if np.isfinite(samples).mean() < 0.5:
        raise StateError("too few test images for an interval: most resamples hold a single class; add images")
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return float(low), float(high)


def _paired_table(first: Predictions, second: Predictions) -> tuple[int, int, int, int]:
    """Count the images that both get right, only the first, only the second, neither."""
    one, two = first.decision() == first.truth(), second.decision() == second.truth()
    return int((one & two).sum()), int((one & ~two).sum()), int((~one & two).sum()), int((~one & ~two).sum())


def paired_accuracy_interval(first: Predictions, second: Predictions) -> tuple[float, float]:
    """Return the 95% interval of accuracy(first) - accuracy(second) on the same images.

    The hybrid score interval for paired proportions (Newcombe 1998, Statistics in Medicine 17:2635, method 10). Unlike
    a bootstrap it does not shrink to nothing when the two runs hardly differ on few images.
    """
    both, only_first, only_second, neither = _paired_table(first, second)
    n = both + only_first + only_second + neither
    p1, p2 = (both + only_first) / n, (both + only_second) / n
    (low1, high1), (low2, high2) = _wilson(p1, n), _wilson(p2, n)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    cross = float(both * neither - only_first * only_second)
    if cross > 0:  # the method's continuity correction of the correlation
        cross = max(cross - n / 2, 0.0)
    phi = cross / math.sqrt(margins) if margins else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0))

    return p1 - p2 - reach(p1 - low1, high2 - p2), p1 - p2 + reach(high1 - p1, p2 - low2)


def _wilson(p: float, n: int) -> tuple[float, float]:
    """Return the 95% score interval of a proportion (Wilson 1927)."""
    z = 1.959963984540054
    centre, spread = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return (centre - spread) / (1 + z**2 / n), (centre + spread) / (1 + z**2 / n)


def mcnemar(first: Predictions, second: Predictions) -> tuple[int, int, float]:
    """Compare two decisions on the same images exactly (McNemar 1947, binomial form).

    Returns:
        the images that only the first gets right, those that only the second gets right, and the two-sided p.

    """
    from scipy.stats import binomtest  # noqa: PLC0415  # train and finetune must not pay a second for it

    _, only_first, only_second, _ = _paired_table(first, second)
    discordant = only_first + only_second
    p = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return only_first, only_second, p
