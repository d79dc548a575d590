"""curve: manifest + embeddings -> what heads and plans decide that learn from parts of the training images."""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from pipeline import heads
from pipeline.core import options, stamps
from pipeline.core.cost import Cost
from pipeline.core.errors import InputError, RefusedError, one_line
from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.data.splits import subsets
from pipeline.data.splits.subsets import Subset
from pipeline.embeddings import matrix
from pipeline.evaluation import curves
from pipeline.evaluation.curves import Curve, Point
from pipeline.heads import curve as of_heads
from pipeline.heads import inputs
from pipeline.heads.inputs import Inputs

HELP = "stage: train heads, and plans if asked for, on parts of the training images: the label-efficiency curve"


def arguments(parser: ArgumentParser) -> None:
    """Ask for a backbone; offer to compute nothing."""
    options.entries(parser, "backbone")
    dry_run = "say how many trainings that would be, and how long the plans' would take"
    parser.add_argument("--dry-run", action="store_true", help=dry_run)


def main(params: Params, backbone: str, *, dry_run: bool = False) -> str:
    """Train on every part, say what of it is expensive before, write the decisions; return the summary line."""
    settings = params.curve
    if problems := of_heads.check(settings.heads):
        raise InputError(*problems)
    streams = any(heads.streams(name, entry) for name, entry in settings.heads.items())
    given = inputs.read(params, backbone, streams=streams)
    drawn = _drawn(params, given)
    sizes = sorted({len(subset.rows) for subset in drawn})
    trainings = f"{len(drawn)} trainings per head and plan, on {', '.join(map(str, sizes))} images"
    price = _price(params, backbone, drawn)
    if dry_run:
        return f"{'; '.join([trainings, *price])}; nothing was computed"
    for line in price:
        tqdm.write(f"curve: {line}", file=sys.stderr)
    points, costs, failed = _trained(params, backbone, given, drawn)
    judged = np.concatenate([given.val, given.test])
    rows = given.row[judged].tolist()
    curve = Curve(
        image_id=[given.table.image_id[row] for row in rows],
        split=[given.table.split[row] for row in rows],
        label=given.images.y[judged].tolist(),
        classes=given.table.classes,
        kinds=dict.fromkeys(settings.heads, "head") | dict.fromkeys(settings.plans, "plan"),
        points=points,
        costs=costs,
        failed=failed,
    )
    made_from = {**stamps.read(manifest.STAMP).outputs, **stamps.read(matrix.stamp_path(backbone)).outputs}
    curves.write(backbone, curve, made_from)
    told = "".join(f"; FAILED, and left out: {reason}" for reason in failed.values())
    return f"{trainings}: {sum(cost.seconds for cost in costs.values()):.0f} s{told}"


def _drawn(params: Params, given: Inputs) -> list[Subset]:
    """Draw the parts; of each class they hold enough for the folds that some heads need."""
    targets = np.unique(given.images.y, return_inverse=True)[1].astype(np.int64)
    contents = [given.table.sha256[row] for row in given.row]
    groups = given.images.group.tolist()
    return subsets.draw(given.train, targets, contents, groups, params.curve, params.seed, params.selection.folds)


def _price(params: Params, backbone: str, drawn: Sequence[Subset]) -> list[str]:
    """Say what the plans' share would take; that of heads is seconds."""
    if not params.curve.plans:
        return []
    from pipeline.finetuning import curve as of_plans  # noqa: PLC0415  # heads must not pay for torch

    prices = []
    for plan in params.curve.plans:
        try:
            prices.append(of_plans.price(params, backbone, plan, drawn))
        except RefusedError as error:
            prices.append(f"{plan}: {one_line('; '.join(error.problems))}")
    return prices


def _trained(
    params: Params, backbone: str, given: Inputs, drawn: Sequence[Subset]
) -> tuple[list[Point], dict[str, Cost], dict[str, str]]:
    runs = [*params.curve.heads, *params.curve.plans]
    with tqdm(total=len(runs) * len(drawn), desc="curve", unit="training", disable=None) as bar:

        def done(head: str) -> None:
            bar.set_postfix_str(head)
            bar.update()

        with inputs.cluster(params, backbone) as cluster:
            points, costs, failed = of_heads.points(params, given, drawn, cluster, done)
        for plan in params.curve.plans:
            from pipeline.finetuning import curve as of_plans  # noqa: PLC0415

            bar.set_postfix_str(plan)
            try:
                found, costs[plan] = of_plans.points(params, backbone, plan, drawn, bar.update)
                points += found
            except RefusedError as error:
                failed[plan] = one_line("; ".join(error.problems))
    return points, costs, failed
