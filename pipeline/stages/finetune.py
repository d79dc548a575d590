"""finetune: manifest + backbone -> a fine-tuned network, its predictions and its validation metrics."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from pipeline import manifest, runs, stamps
from pipeline.atomic import write_json
from pipeline.embeddings import matrix
from pipeline.evaluation.predictions import Predictions
from pipeline.manifest import Manifest
from pipeline.nn import backbones, finetuning
from pipeline.nn.checkpoints import Checkpoint
from pipeline.nn.embedding import Item
from pipeline.nn.finetuning import Task
from pipeline.params import Params


def main(params: Params, backbone: str, plan: str) -> str:
    """Fine-tune, predict validation and test; return the summary line."""
    settings, entry = params.plan(plan), params.backbone(backbone)
    table = manifest.read()
    skipped = stamps.read(matrix.stamp_path(backbone)).facts["skipped"]
    kept = [row for row in range(len(table)) if table.image_id[row] not in skipped]
    task = _task(table, kept)
    loaded = backbones.load(backbone, entry)
    metric = params.selection.metric
    framing = loaded.framing._replace(scaled_jpeg=params.embed.scaled_jpeg)
    decisive = {
        "plan": settings.model_dump(),
        "network": loaded.identity,
        "framing": framing,
        "runtime": params.embed.runtime,
        "metric": metric,
        "seed": params.seed,
        "manifest": stamps.read(manifest.STAMP).outputs,
        "skipped": sorted(skipped),
    }
    checkpoint = Checkpoint(decisive)
    done = finetuning.run(
        task, loaded.network, framing, settings, params.embed.runtime, metric, params.seed, checkpoint
    )

    judged = [kept[row] for row in [*task.val, *task.test]]
    predictions = Predictions(
        image_id=[table.image_id[row] for row in judged],
        split=[table.split[row] for row in judged],
        label=[table.label[row] for row in judged],
        classes=table.classes,
        probability=np.concatenate([done.val, done.test]),
    )
    files = _save(runs.folder(backbone, plan), done, table.classes, loaded.identity)
    facts = {
        "params": settings.model_dump(),
        "epochs": [asdict(epoch) for epoch in done.epochs],
        "seed": params.seed,
    }
    inputs = {**stamps.read(manifest.STAMP).outputs, loaded.weights: str(loaded.identity["weights_sha256"])}
    metrics = runs.record(backbone, plan, "plan", runs.Made(predictions, files, done.cost), inputs, facts)
    checkpoint.remove()
    return f"{len(done.epochs)} epochs: validation {metric} {metrics[metric]:.3f}, {done.cost.seconds:.0f} s"


def _task(table: Manifest, kept: list[int]) -> Task:
    number = {name: place for place, name in enumerate(table.classes)}
    splits = np.array([table.split[row] for row in kept])
    return Task(
        items=[Item(Path(table.path[row]), table.sha256[row]) for row in kept],
        targets=np.array([number[table.label[row]] for row in kept], dtype=np.int64),
        classes=len(table.classes),
        train=np.flatnonzero(splits == "train"),
        val=np.flatnonzero(splits == "val"),
        test=np.flatnonzero(splits == "test"),
    )


def _save(folder: Path, done: finetuning.Finetuned, classes: list[str], identity: object) -> list[Path]:
    weights, description = folder / "model.safetensors", folder / "model.json"
    finetuning.save(weights, done.state)
    write_json(description, {"classes": classes, "backbone": identity})
    return [weights, description]
