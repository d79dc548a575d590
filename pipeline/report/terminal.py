"""Two runs beside each other, for the terminal."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.core.cost import Cost, duration
from pipeline.core.errors import InputError
from pipeline.core.params import Params
from pipeline.core.tables import aligned
from pipeline.embeddings import matrix
from pipeline.evaluation import clusters, runs
from pipeline.evaluation.comparison import Estimate
from pipeline.evaluation.scoring import condensed, metrics
from pipeline.evaluation.scoring.metrics import OF_PROBABILITIES
from pipeline.verdict import judge
from pipeline.verdict.scored import Scored, estimates, score

UNITS = (*OF_PROBABILITIES, "cost")
"""Metrics that are no share of something, so that percent would mislead."""


def two(params: Params, named: Sequence[str], group_of: Mapping[str, str]) -> str:
    """Return a table of two runs, by the names that a person calls them.

    Args:
        params: what they are compared by.
        named: the names.
        group_of: image_id -> group.

    Raises:
        InputError: if they are not two different runs.
        StateError: if one of them failed, or is not what its stage wrote.

    """
    if len(named) != 2:
        got = "1 run" if len(named) == 1 else f"{len(named)} runs"
        raise InputError(f"RUN: got {got}, expected two, or none to write the report")
    first, second = (runs.find(name, params, "RUN", condensed.read) for name in named)
    if first.id == second.id:
        raise InputError(f"RUN: got {first.id} twice, expected two different runs")
    with (
        runs.made_again_by_dvc(params, first.backbone, first.name),
        runs.made_again_by_dvc(params, second.backbone, second.name),
    ):
        frozen = matrix.read_cost(first.backbone), matrix.read_cost(second.backbone)
        return compared(score([first, second], params, group_of), frozen)


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
