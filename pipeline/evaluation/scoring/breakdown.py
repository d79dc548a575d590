"""What a single score hides: precision and recall by class, confusion, and accuracy by confidence."""

from collections.abc import Callable, Mapping

import numpy as np

from pipeline.evaluation.scoring.outcomes import BINS, Outcomes, sum_by_cell
from pipeline.evaluation.scoring.predictions import Floats, Ints, Predictions


def precision_by_class(counts: Floats, outcomes: Outcomes) -> Floats:
    """Return the share of right decisions among the images decided for each class, (B, K); 0 if there are none."""
    _, decided, hits = outcomes.by_class(counts)
    return np.asarray(hits / np.maximum(decided, 1))


def recall_by_class(counts: Floats, outcomes: Outcomes) -> Floats:
    """Return the share of the images of each class that are found, (B, K); NaN if a resample has none."""
    actual, _, hits = outcomes.by_class(counts)
    return np.asarray(np.where(actual > 0, hits / np.maximum(actual, 1), np.nan))


BY_CLASS: Mapping[str, Callable[[Floats, Outcomes], Floats]] = {
    "precision": precision_by_class,
    "recall": recall_by_class,
}


def score_by_class(predictions: Predictions) -> dict[str, dict[str, float]]:
    """Return each metric of BY_CLASS for every class."""
    outcomes, once = Outcomes.of(predictions), np.ones((1, len(predictions.label)))
    return {
        name: dict(zip(predictions.classes, metric(once, outcomes)[0].tolist(), strict=True))
        for name, metric in BY_CLASS.items()
    }


def confusion_shares(counts: Floats, outcomes: Outcomes, pairs: Ints) -> Floats:
    """Return for each pair (true, decided) of classes, (P, 2) sorted, its share of the true class, (B, P)."""
    codes = outcomes.truth * outcomes.classes + outcomes.decided
    wanted = pairs[:, 0] * outcomes.classes + pairs[:, 1]
    place = np.minimum(np.searchsorted(wanted, codes), len(wanted) - 1)
    rows = np.flatnonzero(wanted[place] == codes)
    of_pair = sum_by_cell(counts[:, rows], place[rows], len(wanted))
    of_class = outcomes.by_class(counts)[0][:, pairs[:, 0]]
    return np.asarray(np.where(of_class > 0, of_pair / np.maximum(of_class, 1), np.nan))


def calibration_bins(predictions: Predictions) -> tuple[Floats, Floats, Floats]:
    """Return images, summed confidence and how many are right, by bin of confidence: three of (BINS,)."""
    outcomes, once = Outcomes.of(predictions), np.ones((1, len(predictions.label)))
    images, right = right_by_bin(once, outcomes)
    confidence = once @ (np.eye(BINS)[outcomes.bin] * outcomes.probabilities.highest[:, None])
    return images[0], confidence[0], right[0]


def right_by_bin(counts: Floats, outcomes: Outcomes) -> tuple[Floats, Floats]:
    """Count images, and those of them that are right, by bin of confidence: two of (B, BINS)."""
    found = sum_by_cell(counts, 2 * outcomes.bin + outcomes.likeliest_is_right, 2 * BINS)
    return found[:, ::2] + found[:, 1::2], found[:, 1::2]
