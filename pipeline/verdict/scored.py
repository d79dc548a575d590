"""Finished runs, decided by their rules and scored on the same test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.core.params import Params
from pipeline.evaluation import clusters, comparison, decisions, pairs, runs
from pipeline.evaluation.comparison import Estimate, Resampled
from pipeline.evaluation.decisions import Rule
from pipeline.evaluation.groups import Units
from pipeline.evaluation.pairs import Pair
from pipeline.evaluation.runs import Run
from pipeline.evaluation.scoring import metrics, predictions
from pipeline.evaluation.scoring.predictions import Predictions

UNBOUNDED = ("log_loss", "brier", "cost")
"""Metrics that may be above one; none is below zero."""


@dataclass(frozen=True)
class Scored:
    """R runs, decided by their rules and scored on the same test images."""

    metric: str
    """What was chosen by, and what pairs are compared in."""
    finished: Sequence[Run]
    rules: Sequence[Rule | None]
    decided: Sequence[Predictions]
    """Validation and test."""
    validation: Sequence[Mapping[str, float]]
    plain: Sequence[Mapping[str, float]]
    """Metrics on test; NaN where its images do not define one."""
    resampled: Resampled
    pairs: Sequence[Pair]
    group_of: Mapping[str, str]
    """image_id -> patient, module or session; empty or absent where there is none."""

    @property
    def units(self) -> Units:
        """Return which test images belong together."""
        return self.resampled.units

    @cached_property
    def test(self) -> list[Predictions]:
        """Return the test rows of every run."""
        return [one.of("test") for one in self.decided]


def score(finished: Sequence[Run], params: Params, group_of: Mapping[str, str]) -> Scored:
    """Decide and score runs on their test rows, and compare all pairs of them.

    Args:
        finished: the runs.
        params: rule of decision, metric, resamples and seed.
        group_of: image_id -> group, of at least the test images that have one.

    Raises:
        StateError: if runs were made on different test images.

    """
    metric, costs = params.selection.metric, params.compare.costs
    predictions.require_same_images({run.id: run.predictions.of("test") for run in finished})
    rules = [decisions.rule_for(run.predictions, params) for run in finished]
    decided = [
        rule.apply(run.predictions) if rule else run.predictions for run, rule in zip(finished, rules, strict=True)
    ]
    validation = [
        metrics.score(one.of("val")) if rule else found
        for rule, one, found in zip(rules, decided, map(runs.read_metrics, finished), strict=True)
    ]
    test = {run.id: one.of("test") for run, one in zip(finished, decided, strict=True)}
    classes = decided[0].classes
    extra = {"cost": decisions.mean_cost(decisions.cost_matrix(costs, classes))} if costs else {}
    plain = [metrics.plain(one, extra) for one in test.values()]
    units = Units.by_group(next(iter(test.values())).image_id, group_of)
    resampled = comparison.bootstrap(list(test.values()), params.compare.bootstrap, params.seed, extra, units)
    found = pairs.compare(test, resampled.metrics[metric], [one[metric] for one in plain], metric, units)
    return Scored(metric, finished, rules, decided, validation, plain, resampled, found, group_of)


def estimates(scored: Scored, number: int) -> dict[str, Estimate]:
    """Return a run's test metrics with their intervals: those that the test images define."""
    samples = {name: values[number] for name, values in scored.resampled.metrics.items()}
    return {
        name: Estimate(value, *_interval(scored, number, name))
        for name, value in scored.plain[number].items()
        if np.isfinite(value) and comparison.enough(samples[name])
    }


def _interval(scored: Scored, number: int, metric: str) -> tuple[float, float]:
    units, test = scored.units, scored.test[number]
    samples, value = scored.resampled.metrics[metric][number], scored.plain[number][metric]
    low, high = clusters.sampled_interval(value, samples, units, metrics.weight(metric, test.truth()))
    sampled = (max(low, 0.0), high if metric in UNBOUNDED else min(high, 1.0)) if units.grouped else (low, high)
    if units.grouped and metric == "accuracy":
        return clusters.wider(sampled, clusters.accuracy_interval(test.right(), units))
    return sampled
