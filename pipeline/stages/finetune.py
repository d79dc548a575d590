"""finetune: manifest + backbone -> a fine-tuned network, its predictions, its curve and its validation metrics."""

from argparse import ArgumentParser

import numpy as np

from pipeline.core import options, stamps
from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.evaluation import runs
from pipeline.finetuning import examples, fitting, forecast, inputs, processes, records, saving
from pipeline.finetuning.checkpoints import Checkpoint
from pipeline.finetuning.processes import Processes

HELP = "stage: train the last blocks, or all, of a CNN; `torchrun -m pipeline finetune ...` shares the work"


def arguments(parser: ArgumentParser) -> None:
    """Ask for a backbone and a plan; offer to compute nothing."""
    options.entries(parser, "backbone", "plan")
    dry_run = "say what it would store, and how long it would take; compute nothing that is kept"
    parser.add_argument("--dry-run", action="store_true", help=dry_run)


def main(params: Params, backbone: str, plan: str, *, dry_run: bool = False) -> str:
    """Fine-tune, predict validation and test; return the summary line."""
    settings = params.plan(plan)
    if dry_run:
        given = inputs.read(params, backbone)
        return forecast.summary(given.task, given.loaded, settings, params.embed)

    def make() -> str:
        with processes.started() as together:
            return _finetune(params, backbone, plan, together)

    return runs.make_or_record_failure(backbone, plan, "plan", stamps.read(manifest.STAMP).outputs, make)


def _finetune(params: Params, backbone: str, plan: str, together: Processes) -> str:
    given = inputs.read(params, backbone)
    settings, metric, task, loaded = params.plan(plan), params.selection.metric, given.task, given.loaded
    checkpoint = Checkpoint(inputs.training_key(params, plan, given))
    source = examples.examples_of(task, loaded, settings, params.embed, together)
    done = fitting.run(task, source, loaded.network, settings, metric, params.seed, checkpoint, together)
    if not together.first:
        return f"process {together.rank} of {together.number}: done"
    judged, probability = [given.row[item] for item in [*task.val, *task.test]], np.concatenate([done.val, done.test])
    made = runs.RunResult(
        runs.predictions_of(given.table, judged, probability),
        saving.save(runs.folder(backbone, plan), done.state, records.description(params, plan, given)),
        done.cost + source.cost,
        plots=records.plots(done),
    )
    facts = records.facts(params, plan, given, source, done, together.number)
    score = runs.record(backbone, plan, "plan", made, given.made_from, facts)[metric]
    checkpoint.remove()
    best = f"{len(done.epochs)} epochs, the best one {fitting.best_epoch(done.epochs)}"
    return f"{best}: validation {metric} {score:.3f}, {made.cost.seconds:.0f} s"
