"""Finished runs scored on the same test images: their decisions, metrics, resamples and paired differences."""

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
from pipeline.evaluation.runs import FinishedRun
from pipeline.evaluation.scoring import metrics, predictions
from pipeline.evaluation.scoring.metrics import METRICS, Metric
from pipeline.evaluation.scoring.predictions import Predictions


@dataclass(frozen=True)
class ScoredRuns:
    """R runs, scored on the same test images."""

    metric: str
    """The metric of all choices and of the paired differences."""
    metrics: Mapping[str, Metric]
    """All that are scored: METRICS, and `cost` where params.yaml states costs."""
    finished: Sequence[FinishedRun]
    rules: Sequence[Rule | None]
    decided: Sequence[Predictions]
    """Of validation and test images, by the rules."""
    validation: Sequence[Mapping[str, float]]
    plain: Sequence[Mapping[str, float]]
    """Metrics on the test images; NaN if these do not define one."""
    resampled: Resampled
    pairs: Sequence[Pair]
    group_of: Mapping[str, str]
    """image_id -> patient, module or session; empty or absent if there is none."""

    @property
    def units(self) -> Units:
        """The units of intervals and tests."""
        return self.resampled.units

    @cached_property
    def test(self) -> list[Predictions]:
        """The test images of every run."""
        return [one.of("test") for one in self.decided]


def score(finished: Sequence[FinishedRun], params: Params, group_of: Mapping[str, str]) -> ScoredRuns:
    """Score runs on their test images, and compare all pairs of them.

    `group_of` maps at least the test images that have a group to it. StateError if the runs have different test images.
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
    return ScoredRuns(
        metric, {**METRICS, **extra}, finished, rules, decided, validation, plain, resampled, found, group_of
    )


def estimates(scored: ScoredRuns, number: int) -> dict[str, Estimate]:
    """Return the test metrics of a run with their intervals; undefined ones are left out."""
    samples = {name: values[number] for name, values in scored.resampled.metrics.items()}
    return {
        name: Estimate(value, *_interval(scored, number, name))
        for name, value in scored.plain[number].items()
        if np.isfinite(value) and comparison.mostly_defined(samples[name])
    }


def _interval(scored: ScoredRuns, number: int, metric: str) -> tuple[float, float]:
    units, test = scored.units, scored.test[number]
    samples, value = scored.resampled.metrics[metric][number], scored.plain[number][metric]
    low, high = clusters.resampled_interval(value, samples, units, metrics.weight(metric, test.truth()))
    if units.grouped:
        bounds = scored.metrics[metric]
        low, high = max(low, bounds.least), min(high, 1.0) if bounds.bounded else high
    if units.grouped and metric == "accuracy":
        return clusters.wider((low, high), clusters.accuracy_interval(test.right(), units))
    return low, high
