"""Rules that decide for another class than the most probable one, learnt on the validation images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.core.errors import InputError, unknown
from pipeline.core.params import Params
from pipeline.evaluation.scoring import metrics
from pipeline.evaluation.scoring.metrics import Metric
from pipeline.evaluation.scoring.outcomes import Outcomes
from pipeline.evaluation.scoring.predictions import Floats, Ints, Predictions

Costs = Mapping[str, Mapping[str, float]]
"""true class -> decided class -> cost; by default, right decisions cost 0 and wrong ones 1."""


@dataclass(frozen=True)
class Rule:
    """Decide for the class with the largest weighted sum of probabilities."""

    weights: Floats
    """(K, K): a row for each probability, a column for each decision."""
    threshold: float | None = None
    """The threshold on the probability of the second of two classes, if the rule is one."""

    def apply(self, predictions: Predictions) -> Predictions:
        """Return predictions decided by this rule."""
        condensed = predictions.condensed
        if condensed is None or condensed.blocks is None:
            return replace(predictions, decided=self._decide(predictions.probability))
        found, sure = list[Ints](), list[Floats]()
        for block in condensed.blocks():
            found.append(self._decide(block))
            sure.append(block[np.arange(len(block)), found[-1]])
        condensed = replace(condensed, of_decision=np.concatenate(sure))
        return replace(predictions, decided=np.concatenate(found), condensed=condensed)

    def _decide(self, probability: Floats) -> Ints:
        return np.asarray((probability @ self.weights).argmax(axis=1), dtype=np.int64)


def rule_for(predictions: Predictions, params: Params) -> Rule | None:
    """Return the rule that params.yaml asks for, learnt on the validation images of a run; errors as `choose`."""
    settings = params.compare
    return choose(predictions.of("val"), settings.decision, settings.costs, params.selection.metric)


def choose(validation: Predictions, method: str, costs: Costs, metric: str) -> Rule | None:
    """Return a rule, or None for the most probable class.

    Args:
        validation: the images that a threshold is chosen on.
        method: "most_probable", or for two classes "threshold": the one with the best score.
        costs: if there are any, decide for the smallest expected cost (Elkan 2001), whatever the method.
        metric: the score that a threshold maximises.

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
    """Return the cost of every decision, (K, K): true classes in rows, decided ones in columns."""
    names = list(classes)
    matrix = 1 - np.eye(len(names))
    unlisted = {name for name in (*costs, *(name for row in costs.values() for name in row)) if name not in names}
    if unlisted:
        raise InputError(*(unknown("params.yaml: compare.costs", name, names) for name in sorted(unlisted)))
    for true, row in costs.items():
        for decided, cost in row.items():
            matrix[names.index(true), names.index(decided)] = cost
    return matrix


def mean_cost(matrix: Floats) -> Metric:
    """Return the metric "mean cost of a decision", by a matrix (K, K) as `cost_matrix` returns it."""

    def cost(counts: Floats, judged: Outcomes) -> Floats:
        return np.asarray(counts @ matrix[judged.truth, judged.decided] / counts.sum(axis=1))

    return Metric(cost, larger_is_better=False, unit="", bounded=False)


def _best_threshold(truth: Ints, p: Floats, metric: str) -> float:
    """Return the threshold with the best score; of several, the one nearest to a half.

    The probabilities of each class are sorted once, so that counting those above a threshold is a look-up.
    """
    ascending = np.unique(p)
    between = np.clip((ascending[1:] + ascending[:-1]) / 2, 1e-6, 1 - 1e-6) if len(ascending) > 1 else np.array([0.5])
    thresholds = np.unique(np.append(between, 0.5))
    actual = np.bincount(truth, minlength=2).astype(np.float64)
    above = np.stack([_count_above(thresholds, p[truth == k]) for k in (0, 1)], axis=1)  # (T, 2), by true class
    second = above.sum(axis=1)
    hits = np.stack([actual[0] - above[:, 0], above[:, 1]], axis=1)
    scores = metrics.OF_COUNTS[metric](actual[None], np.stack([len(p) - second, second], axis=1), hits)
    best = thresholds[scores == scores.max()]
    return float(best[np.abs(best - 0.5).argmin()])


def _count_above(thresholds: Floats, p: Floats) -> Floats:
    """Count the probabilities above each threshold, (T,)."""
    return np.asarray(len(p) - np.searchsorted(np.sort(p), thresholds, side="right"), np.float64)
