"""The comparison of two runs for the terminal."""

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
from pipeline.verdict import judge
from pipeline.verdict.scored_runs import ScoredRuns, estimates, score


def compare_two(params: Params, named: Sequence[str], group_of: Mapping[str, str]) -> str:
    """Return a table of two named runs; `group_of` maps image ids to groups.

    Raises:
        InputError: if these are not two different runs.
        StateError: if one of them failed, or a file differs from its stamp.

    """
    if len(named) != 2:
        got = "1 run" if len(named) == 1 else f"{len(named)} runs"
        raise InputError(f"RUN: got {got}, expected two, or none to write the report")
    first, second = (runs.find(name, params, "RUN", condensed.read) for name in named)
    if first.id == second.id:
        raise InputError(f"RUN: got {first.id} twice, expected two different runs")
    with (
        runs.advice_on_unlisted(params, first.backbone, first.name),
        runs.advice_on_unlisted(params, second.backbone, second.name),
    ):
        frozen = matrix.read_cost(first.backbone), matrix.read_cost(second.backbone)
        return comparison_table(score([first, second], params, group_of), frozen)


def comparison_table(scored: ScoredRuns, frozen: tuple[Cost, Cost]) -> str:
    """Return a table of two runs on the same test images: metrics, their paired differences, decisions and cost.

    Args:
        scored: the two runs.
        frozen: the cost of the embeddings of each run's backbone.

    """
    names, (pair,) = [run.id for run in scored.finished], scored.pairs
    first, second = (estimates(scored, number) for number in (0, 1))
    rows = [["", *names, "first - second"]]
    for metric in (name for name in first if name in second):
        word = _percent if scored.metrics[metric].unit == "%" else _number
        rows.append([metric, word(first[metric], ""), word(second[metric], ""), word(_difference(scored, metric), "+")])
    costs = [judge.cost_of(run, part) for run, part in zip(scored.finished, frozen, strict=True)]
    test = "sign-flip" if scored.units.grouped else "McNemar"
    ratio = costs[0].cpu_seconds / max(costs[1].cpu_seconds, 1e-9)
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


def _difference(scored: ScoredRuns, metric: str) -> Estimate:
    """Return the first run minus the second, with the interval that the verdict uses."""
    if metric == scored.metric:
        return scored.pairs[0].difference
    first, second = scored.resampled.metrics[metric]
    gain, weight = scored.plain[0][metric] - scored.plain[1][metric], metrics.weight(metric, scored.test[0].truth())
    samples = first[np.isfinite(first)] - second[np.isfinite(first)]
    return Estimate(gain, *clusters.resampled_interval(gain, samples, scored.units, weight))


def _formatter(digits: int, factor: float) -> Callable[[Estimate, str], str]:
    def word(estimate: Estimate, sign: str) -> str:
        value, low, high = (f"{factor * one:{sign}.{digits}f}" for one in vars(estimate).values())
        return f"{value} [{low}, {high}]"

    return word


_percent, _number = _formatter(1, 100), _formatter(3, 1)
