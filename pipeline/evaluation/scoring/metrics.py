"""Every metric, once.

Each is computed from how often each image counts: all ones give the plain value, multinomial counts give a bootstrap
resample. So one formula serves both, and B resamples cost one matrix product instead of B calls.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import StateError
from pipeline.evaluation.scoring.predictions import Floats, Held, Ints, Kept, Predictions
from pipeline.evaluation.scoring.ranks import Ranking

BINS = 15
"""Of confidence, equally wide, for calibration (Guo et al. 2017)."""


ByClass = tuple[Floats, Floats, Floats]
"""How many images are of each class, how many are taken for it, and how many both: three of (B, K)."""


@dataclass(frozen=True)
class Judged:
    """N images: the true class (N,), the decided class (N,), and what was said of K classes."""

    truth: Ints
    decided: Ints
    classes: int
    """K."""
    said: Held | Kept = field(default_factory=lambda: Held(np.empty(0, np.int64), np.empty((0, 0))))
    """Left out where decisions alone are judged."""
    _sums: list[tuple[Floats, ByClass]] = field(default_factory=list, repr=False, compare=False)
    """The last counts that were added up by class, and the result: several metrics in a row ask for the same."""

    @classmethod
    def of(cls, predictions: Predictions) -> "Judged":
        """Take what metrics need from predictions."""
        return cls(predictions.truth(), predictions.decision(), len(predictions.classes), predictions.said)

    @classmethod
    def of_probability(cls, truth: Ints, probability: Floats) -> "Judged":
        """Judge probabilities, (N, K), by which the most probable class is decided."""
        said = Held(truth, probability)
        return cls(truth, said.likeliest, probability.shape[1], said)

    def linear(self) -> "Judged":
        """Return the same with rank metrics that are linear in how often each image counts."""
        if self.said.ranks or not isinstance(self.said, Held):
            return self
        ranking = Ranking(self.truth, self.classes)
        for number in ranking.classes:
            ranking.add(number, self.said.probability[:, number])
        return replace(self, said=replace(self.said, ranks=ranking.result()))

    @cached_property
    def bin(self) -> Ints:
        """The bin of confidence of every image, (N,); confidence is the highest probability."""
        return np.asarray(np.clip(np.ceil(self.said.highest * BINS).astype(np.int64) - 1, 0, BINS - 1))

    @cached_property
    def likeliest_is_right(self) -> npt.NDArray[np.bool_]:
        """Whether the most probable class is the true one, (N,)."""
        return np.asarray(self.said.likeliest == self.truth)

    @cached_property
    def pairs(self) -> tuple[Ints, Ints]:
        """The pairs (true, decided) of classes that occur, (P, 2), sorted, and how many images are of each, (P,)."""
        codes, images = np.unique(self.truth * self.classes + self.decided, return_counts=True)
        return np.stack(np.divmod(codes, self.classes), axis=1), images

    def by_class(self, counts: Floats) -> ByClass:
        """Add counts (B, N) up by class."""
        if not self._sums or self._sums[0][0] is not counts:
            taken = summed(counts, 2 * self.decided + (self.decided == self.truth), 2 * self.classes)
            sums = summed(counts, self.truth, self.classes), taken[:, ::2] + taken[:, 1::2], taken[:, 1::2]
            self._sums[:] = [(counts, sums)]
        return self._sums[0][1]


def summed(counts: Floats, place: Ints, cells: int) -> Floats:
    """Add counts up by cell: counts (B, N) of things in the cells `place` (N,) -> (B, cells)."""
    return np.stack([np.bincount(place, row, minlength=cells) for row in counts])


Metric = Callable[[Floats, Judged], Floats]
"""counts (B, N), what is judged -> (B,)."""


# --- Of decisions ------------------------------------------------------------------------------------------------


def _mean_over_present(values: Floats, weight: Floats) -> Floats:
    """Mean over the classes that occur in a resample: (B, K), (B, K) -> (B,)."""
    present = weight > 0
    return np.asarray(np.where(present, values, 0).sum(axis=1) / present.sum(axis=1))


def _accuracy(counts: Floats, judged: Judged) -> Floats:
    right = (judged.decided == judged.truth).astype(np.float64)
    return np.asarray(counts @ right / counts.sum(axis=1))


def _balanced_accuracy(counts: Floats, judged: Judged) -> Floats:
    return OF_COUNTS["balanced_accuracy"](*judged.by_class(counts))


def _macro_f1(counts: Floats, judged: Judged) -> Floats:
    return OF_COUNTS["macro_f1"](*judged.by_class(counts))


OF_COUNTS: Mapping[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "accuracy": lambda actual, _, hits: np.asarray(hits.sum(axis=1) / actual.sum(axis=1)),
    "balanced_accuracy": lambda actual, _, hits: _mean_over_present(hits / np.maximum(actual, 1), actual),
    "macro_f1": lambda actual, decided, hits: _mean_over_present(
        2 * hits / np.maximum(actual + decided, 1), actual + decided
    ),
}
"""Metrics of how many images are of each class, are taken for it, and both: three of (B, K) -> (B,)."""


def precision_by_class(counts: Floats, judged: Judged) -> Floats:
    """Return per class the share of right decisions among the images taken for it, (B, K); 0 if there are none."""
    _, decided, hits = judged.by_class(counts)
    return np.asarray(hits / np.maximum(decided, 1))


def recall_by_class(counts: Floats, judged: Judged) -> Floats:
    """Return per class the share of its images that are found, (B, K); NaN if a resample has none."""
    actual, _, hits = judged.by_class(counts)
    return np.asarray(np.where(actual > 0, hits / np.maximum(actual, 1), np.nan))


def plain_calibration(predictions: Predictions) -> tuple[Floats, Floats, Floats]:
    """Return images, summed confidence and how many are right, by bin of confidence: three of (BINS,)."""
    once = np.ones((1, len(predictions.label)))
    images, confidence, right = calibration_bins(once, Judged.of(predictions))
    return images[0], confidence[0], right[0]


def confusion_shares(counts: Floats, judged: Judged, pairs: Ints) -> Floats:
    """Return for each pair (true, decided) of classes, (P, 2) sorted, its share of the true class, (B, P)."""
    codes, wanted = judged.truth * judged.classes + judged.decided, pairs[:, 0] * judged.classes + pairs[:, 1]
    place = np.minimum(np.searchsorted(wanted, codes), len(wanted) - 1)
    rows = np.flatnonzero(wanted[place] == codes)
    of_pair = summed(counts[:, rows], place[rows], len(wanted))
    of_class = judged.by_class(counts)[0][:, pairs[:, 0]]
    return np.asarray(np.where(of_class > 0, of_pair / np.maximum(of_class, 1), np.nan))


# --- Of rankings -------------------------------------------------------------------------------------------------

_OneClass = Callable[[Floats, npt.NDArray[np.bool_], Floats], Floats]
"""counts (B, N), is it of the class (N,), score (N,) -> (B,)."""


def _mean_of_one_against_rest(counts: Floats, judged: Judged, of_one: _OneClass) -> Floats:
    """For two classes, the second; for more, the mean over the classes that occur in a resample, NaN if none does."""
    if not isinstance(judged.said, Held):
        raise TypeError("these probabilities are not held")
    truth, probability = judged.truth, judged.said.probability
    if judged.classes == 2:
        return of_one(counts, truth == 1, probability[:, 1])
    each = np.column_stack([of_one(counts, truth == k, probability[:, k]) for k in range(judged.classes)])
    defined = np.isfinite(each).sum(axis=1)
    return np.asarray(np.where(defined > 0, np.nansum(each, axis=1) / np.maximum(defined, 1), np.nan))


def _roc_auc(counts: Floats, judged: Judged) -> Floats:
    if judged.said.ranks:
        return judged.said.ranks["roc_auc"].resampled(counts)
    return _mean_of_one_against_rest(counts, judged, _auc_of_one)


def _average_precision(counts: Floats, judged: Judged) -> Floats:
    if judged.said.ranks:
        return judged.said.ranks["average_precision"].resampled(counts)
    return _mean_of_one_against_rest(counts, judged, _average_precision_of_one)


def _at_distinct_scores(
    counts: Floats, positive: npt.NDArray[np.bool_], score: Floats
) -> tuple[Floats, Floats]:  # fmt: skip
    """Count positives and negatives at each distinct score, ascending: two of (B, distinct scores)."""
    order = np.argsort(score, kind="stable")
    _, start = np.unique(score[order], return_index=True)
    ordered, is_positive = counts[:, order], positive[order]
    return (
        np.add.reduceat(ordered * is_positive, start, axis=1),
        np.add.reduceat(ordered * ~is_positive, start, axis=1),
    )


def _auc_of_one(counts: Floats, positive: npt.NDArray[np.bool_], score: Floats) -> Floats:
    """P(score of a positive > score of a negative) + P(equal) / 2, the Mann-Whitney form (Hanley & McNeil 1982)."""
    positives, negatives = _at_distinct_scores(counts, positive, score)
    below = np.cumsum(negatives, axis=1) - negatives
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    wins = (positives * (below + negatives / 2)).sum(axis=1)
    return np.asarray(np.where(pairs > 0, wins / np.maximum(pairs, 1), np.nan))


def _average_precision_of_one(counts: Floats, positive: npt.NDArray[np.bool_], score: Floats) -> Floats:
    """Sum of precision times gain in recall over falling thresholds; no interpolation (Davis & Goadrich 2006)."""
    positives, negatives = (part[:, ::-1] for part in _at_distinct_scores(counts, positive, score))
    found, taken = np.cumsum(positives, axis=1), np.cumsum(positives + negatives, axis=1)
    total = positives.sum(axis=1)
    area = (positives * found / np.maximum(taken, 1)).sum(axis=1)
    return np.asarray(np.where(total > 0, area / np.maximum(total, 1), np.nan))


# --- Of probabilities --------------------------------------------------------------------------------------------


def _log_loss(counts: Floats, judged: Judged) -> Floats:
    """Mean of -log p(true class), which is taken as at least the smallest positive float64 step."""
    return np.asarray(counts @ -np.log(np.maximum(judged.said.of_truth, np.finfo(np.float64).eps)) / counts.sum(axis=1))


def _brier(counts: Floats, judged: Judged) -> Floats:
    """Mean squared error of the probabilities summed over classes (Brier 1950); of one of them where there are two."""
    error = judged.said.squared_error
    return np.asarray(counts @ (error / 2 if judged.classes == 2 else error) / counts.sum(axis=1))


def _calibration_error(counts: Floats, judged: Judged) -> Floats:
    """Average the distance of confidence and accuracy over bins of confidence (ECE; Guo et al. 2017)."""
    excess = judged.said.highest - judged.likeliest_is_right
    of_bin = counts @ (np.eye(BINS)[judged.bin] * excess[:, None])  # a third of the products of `calibration_bins`
    return np.asarray(np.abs(of_bin).sum(axis=1) / counts.sum(axis=1))


def calibration_bins(counts: Floats, judged: Judged) -> tuple[Floats, Floats, Floats]:
    """Sum up images, their confidence and how many are right, by bin of confidence: three of (B, BINS)."""
    images, right = right_by_bin(counts, judged)
    return images, counts @ (np.eye(BINS)[judged.bin] * judged.said.highest[:, None]), right


def right_by_bin(counts: Floats, judged: Judged) -> tuple[Floats, Floats]:
    """Count images, and those of them that are right, by bin of confidence: two of (B, BINS)."""
    found = summed(counts, 2 * judged.bin + judged.likeliest_is_right, 2 * BINS)
    return found[:, ::2] + found[:, 1::2], found[:, 1::2]


METRICS: Mapping[str, Metric] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "macro_f1": _macro_f1,
    "roc_auc": _roc_auc,
    "average_precision": _average_precision,
    "log_loss": _log_loss,
    "brier": _brier,
    "calibration_error": _calibration_error,
}
BY_CLASSES_ALIKE = ("balanced_accuracy", "macro_f1", "roc_auc", "average_precision")
"""To which the images of a rare class add as much as those of a common one; to all others every image adds the same."""
OF_PROBABILITIES = ("log_loss", "brier", "calibration_error")
"""What calibration is judged by; smaller is better, for all others larger."""
BY_CLASS: Mapping[str, Callable[[Floats, Judged], Floats]] = {
    "precision": precision_by_class,
    "recall": recall_by_class,
}


def weight(metric: str, truth: Ints) -> Floats | None:
    """Return what each image adds to a metric, (N,), None for the same: truth (N,) is a class by its number."""
    return 1 / np.bincount(truth)[truth] if metric in BY_CLASSES_ALIKE else None


def value(metric: str, truth: Ints, decided: Ints, classes: int) -> float:
    """Return the plain value of a metric of decisions: truth (N,), decided (N,), both numbers of one of the classes."""
    return float(METRICS[metric](np.ones((1, len(truth))), Judged(truth, decided, classes))[0])


def plain(predictions: Predictions, extra: Mapping[str, Metric] | None = None) -> dict[str, float]:
    """Return every metric's plain value, and extra ones'; NaN where images of some class are lacking."""
    judged = Judged.of(predictions)
    once = np.ones((1, len(judged.truth)))
    return {name: float(metric(once, judged)[0]) for name, metric in {**METRICS, **(extra or {})}.items()}


def score(predictions: Predictions) -> dict[str, float]:
    """Return every metric's plain value.

    Raises:
        StateError: if one is undefined, for lack of images of some class.

    """
    values = plain(predictions)
    if bad := [name for name, found in values.items() if not np.isfinite(found)]:
        raise StateError(f"{bad[0]} is undefined: the {predictions.split[0]} split lacks images of some class")
    return values


def score_by_class(predictions: Predictions) -> dict[str, dict[str, float]]:
    """Return each metric of BY_CLASS for every class."""
    judged = Judged.of(predictions)
    once = np.ones((1, len(judged.truth)))
    return {
        name: dict(zip(predictions.classes, metric(once, judged)[0].tolist(), strict=True))
        for name, metric in BY_CLASS.items()
    }
