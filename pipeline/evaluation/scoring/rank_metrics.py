"""ROC-AUC and average precision on resamples, from the probabilities themselves or from their linear form."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.scoring.outcomes import Outcomes
from pipeline.evaluation.scoring.predictions import Floats, FullProbabilities

_OneAgainstRest = Callable[[Floats, npt.NDArray[np.bool_], Floats], Floats]
"""counts (B, N), is it of the class (N,), score (N,) -> (B,)."""


def roc_auc(counts: Floats, outcomes: Outcomes) -> Floats:
    """P(score of a positive > score of a negative) + P(equal) / 2, the Mann-Whitney form (Hanley & McNeil 1982)."""
    if outcomes.probabilities.ranks:
        return outcomes.probabilities.ranks["roc_auc"].resampled(counts)
    return _mean_over_classes(counts, outcomes, _auc_of_class)


def average_precision(counts: Floats, outcomes: Outcomes) -> Floats:
    """Sum of precision times gain in recall over falling thresholds; no interpolation (Davis & Goadrich 2006)."""
    if outcomes.probabilities.ranks:
        return outcomes.probabilities.ranks["average_precision"].resampled(counts)
    return _mean_over_classes(counts, outcomes, _precision_of_class)


def _mean_over_classes(counts: Floats, outcomes: Outcomes, of_class: _OneAgainstRest) -> Floats:
    """Score the second of two classes; of more, average over the classes that a resample holds, NaN if it has none."""
    if not isinstance(outcomes.probabilities, FullProbabilities):
        raise TypeError("these probabilities are not in memory")
    truth, probability = outcomes.truth, outcomes.probabilities.probability
    if outcomes.classes == 2:
        return of_class(counts, truth == 1, probability[:, 1])
    each = np.column_stack([of_class(counts, truth == k, probability[:, k]) for k in range(outcomes.classes)])
    defined = np.isfinite(each).sum(axis=1)
    return np.asarray(np.where(defined > 0, np.nansum(each, axis=1) / np.maximum(defined, 1), np.nan))


def _auc_of_class(counts: Floats, positive: npt.NDArray[np.bool_], score: Floats) -> Floats:
    positives, negatives = _counts_by_score(counts, positive, score)
    below = np.cumsum(negatives, axis=1) - negatives
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    wins = (positives * (below + negatives / 2)).sum(axis=1)
    return np.asarray(np.where(pairs > 0, wins / np.maximum(pairs, 1), np.nan))


def _precision_of_class(counts: Floats, positive: npt.NDArray[np.bool_], score: Floats) -> Floats:
    positives, negatives = (part[:, ::-1] for part in _counts_by_score(counts, positive, score))
    found, taken = np.cumsum(positives, axis=1), np.cumsum(positives + negatives, axis=1)
    total = positives.sum(axis=1)
    area = (positives * found / np.maximum(taken, 1)).sum(axis=1)
    return np.asarray(np.where(total > 0, area / np.maximum(total, 1), np.nan))


def _counts_by_score(counts: Floats, positive: npt.NDArray[np.bool_], score: Floats) -> tuple[Floats, Floats]:
    """Count positives and negatives at each distinct score, ascending: two of (B, distinct scores)."""
    order = np.argsort(score, kind="stable")
    _, start = np.unique(score[order], return_index=True)
    ordered, is_positive = counts[:, order], positive[order]
    return (
        np.add.reduceat(ordered * is_positive, start, axis=1),
        np.add.reduceat(ordered * ~is_positive, start, axis=1),
    )
