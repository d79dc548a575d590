"""curve: manifest + embeddings -> what heads and plans decide that learn from parts of the training images."""

import sys
from argparse import ArgumentParser

from tqdm import tqdm

from pipeline.core import options
from pipeline.core.params import Params
from pipeline.evaluation import curves
from pipeline.heads import curve as of_heads
from pipeline.heads import inputs

HELP = "stage: train heads, and plans if asked for, on parts of the training images: the label-efficiency curve"


def arguments(parser: ArgumentParser) -> None:
    """Ask for a backbone; offer to compute nothing."""
    options.entries(parser, "backbone")
    dry_run = "say how many trainings that would be, and how long the plans' would take"
    parser.add_argument("--dry-run", action="store_true", help=dry_run)


def main(params: Params, backbone: str, *, dry_run: bool = False) -> str:
    """Train on every part, say what of it is expensive before, write the decisions; return the summary line."""
    plans = params.curve.plans
    if plans:
        from pipeline.finetuning import curve as of_plans  # noqa: PLC0415  # heads must not pay for torch

    given = of_heads.read(params, backbone)
    subsets = of_heads.subsets(params, given)
    labels = sorted({len(subset.rows) for subset in subsets})
    trainings = f"{len(subsets)} trainings per head and plan, on {', '.join(map(str, labels))} images"
    if unlike := curves.unlike_fractions(labels, params.curve.fractions, params.selection.folds):
        trainings += f" ({unlike})"
    prices = of_plans.prices(params, backbone, subsets) if plans else []  # those of heads take seconds
    if dry_run:
        return f"{'; '.join([trainings, *prices])}; nothing was computed"
    for line in prices:
        tqdm.write(f"curve: {line}", file=sys.stderr)

    runs = len(params.curve.heads) + len(plans)
    with tqdm(total=runs * len(subsets), desc="curve", unit="training", disable=None) as bar:

        def progress(run: str) -> None:
            bar.set_postfix_str(run)
            bar.update()

        with inputs.cluster(params, backbone) as cluster:
            trained = of_heads.train(params, given, subsets, cluster, progress)
        if plans:
            trained += of_plans.train(params, backbone, subsets, progress)
    curves.write(backbone, of_heads.curve(params, given, trained), inputs.made_from(backbone))
    failed = "".join(f"; FAILED, and left out: {reason}" for reason in trained.failed.values())
    return f"{trainings}: {sum(cost.seconds for cost in trained.costs.values()):.0f} s{failed}"
