"""finetune: manifest + backbone -> a fine-tuned network, its predictions, its curve and its validation metrics."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import manifest, runs, stamps
from pipeline.embeddings import matrix
from pipeline.errors import InputError, StateError
from pipeline.evaluation.predictions import Predictions
from pipeline.manifest import Manifest
from pipeline.nn import backbones
from pipeline.nn.backbones import Loaded
from pipeline.nn.embedding import Item
from pipeline.nn.finetuning import examples, fitting, forecast, processes, saving
from pipeline.nn.finetuning.checkpoints import Checkpoint
from pipeline.nn.finetuning.processes import Processes
from pipeline.nn.finetuning.task import Finetuned, Floats, Task
from pipeline.params import Params, Plan


def main(params: Params, backbone: str, plan: str, *, dry_run: bool = False) -> str:
    """Fine-tune, predict validation and test; return the summary line."""
    settings, table = params.plan(plan), manifest.read()
    loaded = backbones.load(backbone, params.backbone(backbone))
    loaded = replace(loaded, framing=loaded.framing._replace(scaled_jpeg=params.embed.scaled_jpeg))
    kept = _kept(table, backbone)
    task = _task(table, kept, loaded, backbone, settings)
    if dry_run:
        return forecast.forecast(task, loaded, settings, params.embed).said
    with processes.started() as together:
        return _run(params, backbone, plan, loaded, task, [table.image_id[row] for row in kept], together)


def _run(
    params: Params, backbone: str, plan: str, loaded: Loaded, task: Task, image_id: list[str], together: Processes
) -> str:
    settings, metric, table = params.plan(plan), params.selection.metric, manifest.read()
    lineage = {**stamps.read(manifest.STAMP).outputs, loaded.weights: str(loaded.identity["weights_sha256"])}
    if settings.start == "logistic":
        lineage |= stamps.read(matrix.stamp_path(backbone)).outputs
    checkpoint = Checkpoint(_decisive(params, settings, loaded, lineage, image_id))
    inputs = examples.examples_of(task, loaded, settings, params.embed, together)
    done = fitting.run(task, inputs, loaded.network, settings, metric, params.seed, checkpoint, together)
    if not together.first:
        return f"process {together.rank} of {together.number}: done"

    row_of = table.row_of()
    judged = [row_of[image_id[row]] for row in [*task.val, *task.test]]
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
        "made_from": lineage,
    }
    files = saving.save(runs.folder(backbone, plan), done.state, description)
    facts = {
        "params": settings.model_dump(),
        "epochs": [asdict(epoch) for epoch in done.epochs],
        "seed": params.seed,
        "processes": together.number,
    }
    made = runs.Made(predictions, files, done.cost, plots=_curves(done))
    metrics = runs.record(backbone, plan, "plan", made, lineage, facts)
    checkpoint.remove()
    best = fitting.best_epoch(done.epochs)
    return (
        f"{len(done.epochs)} epochs, the best one {best}: validation {metric} {metrics[metric]:.3f}, "
        f"{done.cost.seconds:.0f} s"
    )


def _decisive(
    params: Params, settings: Plan, loaded: Loaded, lineage: Mapping[str, str], image_id: list[str]
) -> dict[str, Any]:
    """Return everything that decides the result of the training."""
    return {
        "plan": settings.model_dump(),
        "network": loaded.identity,
        "framing": loaded.framing,
        "runtime": params.embed.runtime,
        "metric": params.selection.metric,
        "seed": params.seed,
        "made_from": lineage,
        "images": image_id,
    }


def _kept(table: Manifest, backbone: str) -> list[int]:
    """Return the manifest's rows whose images `embed` could decode."""
    skipped = stamps.read(matrix.stamp_path(backbone)).facts["skipped"]
    return [row for row in range(len(table)) if table.image_id[row] not in skipped]


def _task(table: Manifest, kept: list[int], loaded: Loaded, backbone: str, plan: Plan) -> Task:
    number = {name: place for place, name in enumerate(table.classes)}
    splits = np.array([table.split[row] for row in kept])
    return Task(
        items=[Item(Path(table.path[row]), table.sha256[row]) for row in kept],
        targets=np.array([number[table.label[row]] for row in kept], dtype=np.int64),
        classes=len(table.classes),
        train=np.flatnonzero(splits == "train"),
        val=np.flatnonzero(splits == "val"),
        test=np.flatnonzero(splits == "test"),
        embedded=_embedded(table, kept, loaded, backbone) if plan.start == "logistic" else None,
    )


def _embedded(table: Manifest, kept: list[int], loaded: Loaded, backbone: str) -> Floats:
    """Return the last block's averaged output from the matrix: a row for every item of the task."""
    embedded = matrix.read(backbone)
    wanted = f"{loaded.network.names()[-1]}/average"
    if wanted not in embedded.recipe["columns"]:
        raise InputError(
            f"params.yaml: plans: start: got 'logistic', which needs {wanted} among the embeddings, got "
            f"{', '.join(embedded.recipe['columns'])}; add it to backbones.{backbone}, or set start: zeros"
        )
    if list(embedded.image_id) != [table.image_id[row] for row in kept]:
        raise StateError(f"{matrix.matrix_path(backbone)}: made for another manifest; run `dvc repro`")
    start, stop = embedded.recipe["columns"][wanted]
    return np.asarray(embedded.features[:, start:stop])


def _curves(done: Finetuned) -> dict[str, runs.Table]:
    """Return what DVC draws of the training: loss and validation score by epoch."""
    numbered = list(enumerate(done.epochs, start=1))
    return {
        name: [("epoch", name), *((number, f"{getattr(epoch, name):.6f}") for number, epoch in numbered)]
        for name in ("loss", "validation")
    }
