"""finetune: manifest + backbone -> a fine-tuned network, its predictions, its curve and its validation metrics."""

from argparse import ArgumentParser
from dataclasses import asdict

import numpy as np

from pipeline.core import options, stamps
from pipeline.core.cost import duration
from pipeline.core.params import Params
from pipeline.core.tables import Table
from pipeline.data import manifest
from pipeline.evaluation import runs
from pipeline.evaluation.scoring.predictions import Predictions
from pipeline.finetuning import examples, fitting, forecast, inputs, prediction, processes, saving
from pipeline.finetuning.checkpoints import Checkpoint
from pipeline.finetuning.inputs import Inputs
from pipeline.finetuning.processes import Processes
from pipeline.finetuning.task import Finetuned
from pipeline.networks import runtime

HELP = "stage: train the last blocks, or all, of a CNN; `torchrun -m pipeline finetune ...` shares the work"


def arguments(parser: ArgumentParser) -> None:
    """Ask for a backbone and a plan; offer to compute nothing."""
    options.entries(parser, "backbone", "plan")
    dry_run = "say what it would store, and how long it would take; compute nothing that is kept"
    parser.add_argument("--dry-run", action="store_true", help=dry_run)


def main(params: Params, backbone: str, plan: str, *, dry_run: bool = False) -> str:
    """Fine-tune, predict validation and test; return the summary line."""
    if not dry_run:
        made_from = stamps.read(manifest.STAMP).outputs
        return runs.attempted(backbone, plan, "plan", made_from, lambda: _made(params, backbone, plan, dry_run=False))
    return _made(params, backbone, plan, dry_run=True)


def _made(params: Params, backbone: str, plan: str, *, dry_run: bool) -> str:
    given = inputs.read(params, backbone)
    if dry_run:
        settings = params.plan(plan)
        price = forecast.forecast(given.task, given.loaded, settings, params.embed)
        took = duration(price.storing + price.training)
        return f"{price.disk}at most {settings.epochs} epochs, about {took}; nothing was computed"
    with processes.started() as together:
        return _run(params, backbone, plan, given, together)


def _run(params: Params, backbone: str, plan: str, given: Inputs, together: Processes) -> str:
    settings, metric, task, loaded = params.plan(plan), params.selection.metric, given.task, given.loaded
    checkpoint = Checkpoint(inputs.decisive(params, plan, given))
    source = examples.examples_of(task, loaded, settings, params.embed, together)
    done = fitting.run(task, source, loaded.network, settings, metric, params.seed, checkpoint, together)
    cost = done.cost + source.cost
    if not together.first:
        return f"process {together.rank} of {together.number}: done"

    table, judged = given.table, [given.row[item] for item in [*task.val, *task.test]]
    predictions = Predictions(
        image_id=[table.image_id[row] for row in judged],
        split=[table.split[row] for row in judged],
        label=[table.label[row] for row in judged],
        classes=table.classes,
        probability=np.concatenate([done.val, done.test]),
    )
    description = {
        "architecture": loaded.identity["backbone"],
        "classes": table.classes,
        "preprocessing": saving.preprocessing_of(loaded),
        "plan": settings.model_dump(),
        "seed": params.seed,
        "made_from": given.made_from,
    }
    files = saving.save(runs.folder(backbone, plan), done.state, description)
    facts = {
        "params": settings.model_dump(),
        "epochs": [asdict(epoch) for epoch in done.epochs],
        "seed": params.seed,
        "processes": together.number,
        "device": runtime.device().type,
        **({"stored_bytes": source.stored_bytes} if settings.cache_frozen else {}),
        **prediction.facts(task, loaded, settings, params.embed.runtime, done.state),
    }
    made = runs.Made(predictions, files, cost, plots=_curves(done))
    metrics = runs.record(backbone, plan, "plan", made, given.made_from, facts)
    checkpoint.remove()
    best = fitting.best_epoch(done.epochs)
    return (
        f"{len(done.epochs)} epochs, the best one {best}: validation {metric} {metrics[metric]:.3f}, "
        f"{cost.seconds:.0f} s"
    )


def _curves(done: Finetuned) -> dict[str, Table]:
    """Return what DVC draws of the training: loss and validation score by epoch."""
    numbered = list(enumerate(done.epochs, start=1))
    return {
        name: [("epoch", name), *((number, f"{getattr(epoch, name):.6f}") for number, epoch in numbered)]
        for name in runs.PLOTS
    }
