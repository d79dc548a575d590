"""From probabilities to decisions, where "the most probable class" is not what is wanted; learnt on validation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.core.errors import InputError, unknown
from pipeline.core.params import Params
from pipeline.evaluation.scoring import metrics
from pipeline.evaluation.scoring.metrics import Judged, Metric
from pipeline.evaluation.scoring.predictions import Floats, Ints, Predictions

Costs = Mapping[str, Mapping[str, float]]
"""true class -> decided class -> what that costs; left out, being right costs 0 and being wrong 1."""


@dataclass(frozen=True)
class Rule:
    """Decide for the class with the largest weighted sum of probabilities."""

    weights: Floats
    """(K, K): rows are the classes whose probability it is, columns those decided for."""
    threshold: float | None = None
    """Of the second class's probability, where that is what was chosen."""

    def apply(self, predictions: Predictions) -> Predictions:
        """Return predictions decided by this rule."""
        kept = predictions.kept
        if kept is None or kept.blocks is None:
            return replace(predictions, decided=self._of(predictions.probability))
        found, sure = list[Ints](), list[Floats]()
        for block in kept.blocks():
            found.append(self._of(block))
            sure.append(block[np.arange(len(block)), found[-1]])
        kept = replace(kept, of_decision=np.concatenate(sure))
        return replace(predictions, decided=np.concatenate(found), kept=kept)

    def _of(self, probability: Floats) -> Ints:
        return np.asarray((probability @ self.weights).argmax(axis=1), dtype=np.int64)


def rule_for(predictions: Predictions, params: Params) -> Rule | None:
    """Return the rule that params.yaml asks for, learnt on the validation images of a run; as `choose`."""
    asked = params.compare
    return choose(predictions.of("val"), asked.decision, asked.costs, params.selection.metric)


def choose(validation: Predictions, method: str, costs: Costs, metric: str) -> Rule | None:
    """Return the rule that params.yaml asks for; None for the most probable class.

    Args:
        validation: the only images that a threshold may be chosen on.
        method: "most_probable", or "threshold": for two classes the one with the best score on validation.
        costs: if any, decide for the smallest expected cost (Elkan 2001), whatever `method` says.
        metric: what a threshold maximises.

    Raises:
        InputError: for costs of an unknown class, or a threshold for more than two classes.

    """
    if costs:
        return Rule(-cost_matrix(costs, validation.classes))
    if method == "most_probable":
        return None
    if len(validation.classes) != 2:
        raise InputError(
            f"params.yaml: compare.decision: got 'threshold' with {len(validation.classes)} classes, expected two; "
            "for more, state compare.costs"
        )
    threshold = _best_threshold(validation.truth(), validation.probability[:, 1], metric)
    return Rule(np.diag([threshold, 1 - threshold]), threshold)


def cost_matrix(costs: Costs, classes: Sequence[str]) -> Floats:
    """Return what deciding costs, (K, K): rows true classes, columns decided ones."""
    names = list(classes)
    matrix = 1 - np.eye(len(names))
    strange = {name for name in (*costs, *(name for row in costs.values() for name in row)) if name not in names}
    if strange:
        raise InputError(*(unknown("params.yaml: compare.costs", name, names) for name in sorted(strange)))
    for true, row in costs.items():
        for decided, cost in row.items():
            matrix[names.index(true), names.index(decided)] = cost
    return matrix


def mean_cost(matrix: Floats) -> Metric:
    """Return the metric that averages what decisions cost, by a matrix (K, K) as `cost_matrix` returns it."""

    def cost(counts: Floats, judged: Judged) -> Floats:
        return np.asarray(counts @ matrix[judged.truth, judged.decided] / counts.sum(axis=1))

    return cost


def _best_threshold(truth: Ints, p: Floats, metric: str) -> float:
    """Return, of the thresholds with the best score, the one nearest to a half.

    Sorted once, each class tells by a look-up how many of its images lie above a threshold.
    """
    ascending = np.unique(p)
    between = np.clip((ascending[1:] + ascending[:-1]) / 2, 1e-6, 1 - 1e-6) if len(ascending) > 1 else np.array([0.5])
    thresholds = np.unique(np.append(between, 0.5))
    actual = np.bincount(truth, minlength=2).astype(np.float64)
    above = np.stack([_above(thresholds, p[truth == k]) for k in (0, 1)], axis=1)  # (T, 2), by true class
    second = above.sum(axis=1)
    hits = np.stack([actual[0] - above[:, 0], above[:, 1]], axis=1)
    scores = metrics.OF_COUNTS[metric](actual[None], np.stack([len(p) - second, second], axis=1), hits)
    best = thresholds[scores == scores.max()]
    return float(best[np.abs(best - 0.5).argmin()])


def _above(thresholds: Floats, p: Floats) -> Floats:
    """Count the probabilities above each threshold, (T,)."""
    return np.asarray(len(p) - np.searchsorted(np.sort(p), thresholds, side="right"), np.float64)
