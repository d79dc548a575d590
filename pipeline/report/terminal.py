"""Two runs beside each other, for the terminal."""

from collections.abc import Callable

import numpy as np

from pipeline.core.cost import Cost, duration
from pipeline.core.tables import aligned
from pipeline.evaluation import clusters
from pipeline.evaluation.comparison import Estimate
from pipeline.evaluation.scoring import metrics
from pipeline.evaluation.scoring.metrics import OF_PROBABILITIES
from pipeline.verdict import judge
from pipeline.verdict.scored import Scored, estimates

UNITS = (*OF_PROBABILITIES, "cost")
"""Metrics that are no share of something, so that percent would mislead."""


def compared(scored: Scored, frozen: tuple[Cost, Cost]) -> str:
    """Return a table of two runs on the same test images: metrics, their paired differences, decisions and cost.

    Args:
        scored: the two runs.
        frozen: what the embeddings of each one's backbone cost.

    """
    names, (pair,) = [run.id for run in scored.finished], scored.pairs
    first, second = (estimates(scored, number) for number in (0, 1))
    rows = [["", *names, "second - first"]]
    for metric in (name for name in first if name in second):
        word = _number if metric in UNITS else _percent
        rows.append([metric, word(first[metric], ""), word(second[metric], ""), word(_difference(scored, metric), "+")])
    costs = [judge.cost_of(run, part) for run, part in zip(scored.finished, frozen, strict=True)]
    test = "sign-flip" if scored.units.grouped else "McNemar"
    ratio = costs[1].cpu_seconds / max(costs[0].cpu_seconds, 1e-9)
    per_1000 = [judge.seconds_per_1000(run, part) for run, part in zip(scored.finished, frozen, strict=True)]
    rows += [
        ["CPU time", *(duration(one.cpu_seconds) for one in costs), f"x {ratio:.2f}"],
        ["images through CNN", *(f"{one.images:,}" for one in costs), ""],
        ["1,000 predictions", *(f"{seconds:.1f} s" if seconds else "not timed" for seconds in per_1000), ""],
        ["alone right on", str(pair.only_first_right), str(pair.only_second_right), f"{test} p {pair.p:.3g}"],
    ]
    images, units = len(scored.test[0].label), scored.units
    of_groups = f" in {units.number:,} groups, the unit of intervals and p" if units.grouped else ""
    return f"{images:,} test images{of_groups}, 95% intervals in brackets\n\n{aligned(rows)}\n"


def _difference(scored: Scored, metric: str) -> Estimate:
    """Return second minus first, with the interval that the verdict uses."""
    if metric == scored.metric:
        return scored.pairs[0].turned().difference
    first, second = scored.resampled.metrics[metric]
    gain, weight = scored.plain[1][metric] - scored.plain[0][metric], metrics.weight(metric, scored.test[0].truth())
    samples = second[np.isfinite(first)] - first[np.isfinite(first)]
    return Estimate(gain, *clusters.sampled_interval(gain, samples, scored.units, weight))


def _formatted(digits: int, factor: float) -> Callable[[Estimate, str], str]:
    def word(estimate: Estimate, sign: str) -> str:
        value, low, high = (f"{factor * one:{sign}.{digits}f}" for one in vars(estimate).values())
        return f"{value} [{low}, {high}]"

    return word


_percent, _number = _formatted(1, 100), _formatted(3, 1)
