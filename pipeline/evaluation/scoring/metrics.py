"""METRICS: every metric by name, with its direction and unit.

A metric is computed from how often each image counts: all ones give its plain value, multinomial counts a bootstrap
resample. So one formula serves both, and B resamples cost one matrix product instead of B calls.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.core.errors import StateError
from pipeline.evaluation.scoring import rank_metrics
from pipeline.evaluation.scoring.outcomes import BINS, Outcomes
from pipeline.evaluation.scoring.predictions import Floats, Ints, Predictions


@dataclass(frozen=True)
class Metric:
    """A function of counts (B, N) and the outcomes of N images, which returns values (B,)."""

    function: Callable[[Floats, Outcomes], Floats]
    larger_is_better: bool = True
    unit: str = "%"
    """Of a share, which is shown in percent; empty for other numbers."""
    bounded: bool = True
    """Whether it is at most 1."""
    least: float = 0.0
    """The smallest value that it can have."""
    classes_count_alike: bool = False
    """Whether the images of a rare class add as much as those of a common one; otherwise every image adds the same."""

    def __call__(self, counts: Floats, outcomes: Outcomes) -> Floats:
        """Return the metric on resamples: (B,)."""
        return self.function(counts, outcomes)


def _accuracy(counts: Floats, outcomes: Outcomes) -> Floats:
    right = (outcomes.decided == outcomes.truth).astype(np.float64)
    return np.asarray(counts @ right / counts.sum(axis=1))


def _mean_over_present(values: Floats, weight: Floats) -> Floats:
    """Average over the classes that a resample holds: (B, K), (B, K) -> (B,)."""
    present = weight > 0
    return np.asarray(np.where(present, values, 0).sum(axis=1) / present.sum(axis=1))


OF_COUNTS: Mapping[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "accuracy": lambda actual, _, hits: np.asarray(hits.sum(axis=1) / actual.sum(axis=1)),
    "balanced_accuracy": lambda actual, _, hits: _mean_over_present(hits / np.maximum(actual, 1), actual),
    "macro_f1": lambda actual, decided, hits: _mean_over_present(
        2 * hits / np.maximum(actual + decided, 1), actual + decided
    ),
}
"""Metrics of decisions, from the counts by class as `Outcomes.by_class` returns them: three of (B, K) -> (B,)."""


def _of_counts(name: str) -> Callable[[Floats, Outcomes], Floats]:
    return lambda counts, outcomes: OF_COUNTS[name](*outcomes.by_class(counts))


def _log_loss(counts: Floats, outcomes: Outcomes) -> Floats:
    """Mean of -log p(true class), where p is at least the smallest positive float64 step."""
    probability = np.maximum(outcomes.probabilities.of_truth, np.finfo(np.float64).eps)
    return np.asarray(counts @ -np.log(probability) / counts.sum(axis=1))


def _brier(counts: Floats, outcomes: Outcomes) -> Floats:
    """Mean squared error of the probabilities summed over classes (Brier 1950); of one class where there are two."""
    error = outcomes.probabilities.squared_error
    return np.asarray(counts @ (error / 2 if outcomes.classes == 2 else error) / counts.sum(axis=1))


def _calibration_error(counts: Floats, outcomes: Outcomes) -> Floats:
    """Distance of confidence and accuracy, averaged over bins of confidence (ECE; Guo et al. 2017)."""
    excess = outcomes.probabilities.highest - outcomes.likeliest_is_right
    of_bin = counts @ (np.eye(BINS)[outcomes.bin] * excess[:, None])
    return np.asarray(np.abs(of_bin).sum(axis=1) / counts.sum(axis=1))


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(_accuracy),
    "balanced_accuracy": Metric(_of_counts("balanced_accuracy"), classes_count_alike=True),
    "macro_f1": Metric(_of_counts("macro_f1"), classes_count_alike=True),
    "roc_auc": Metric(rank_metrics.roc_auc, classes_count_alike=True),
    "average_precision": Metric(rank_metrics.average_precision, classes_count_alike=True),
    "log_loss": Metric(_log_loss, larger_is_better=False, unit="", bounded=False),
    "brier": Metric(_brier, larger_is_better=False, unit="", bounded=False),
    "calibration_error": Metric(_calibration_error, larger_is_better=False, unit=""),
}


def weight(metric: str, truth: Ints) -> Floats | None:
    """Return what each image adds to a metric, (N,), None for the same: truth (N,) is a class by its number."""
    alike = metric in METRICS and METRICS[metric].classes_count_alike
    return 1 / np.bincount(truth)[truth] if alike else None


def value(metric: str, truth: Ints, decided: Ints, classes: int) -> float:
    """Return the plain value of a metric of decisions: truth (N,), decided (N,), both numbers of one of the classes.

    >>> value("accuracy", np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0]), classes=2)
    0.75
    """
    return float(METRICS[metric](np.ones((1, len(truth))), Outcomes(truth, decided, classes))[0])


def plain(predictions: Predictions, extra: Mapping[str, Metric] | None = None) -> dict[str, float]:
    """Return every metric's plain value, and that of extra ones; NaN where images of some class are missing."""
    outcomes, once = Outcomes.of(predictions), np.ones((1, len(predictions.label)))
    return {name: float(metric(once, outcomes)[0]) for name, metric in {**METRICS, **(extra or {})}.items()}


def score(predictions: Predictions) -> dict[str, float]:
    """Return every metric's plain value.

    Raises:
        StateError: if one is undefined because images of some class are missing.

    """
    values = plain(predictions)
    if bad := [name for name, found in values.items() if not np.isfinite(found)]:
        raise StateError(f"{bad[0]} is undefined: the {predictions.split[0]} split lacks images of some class")
    return values
