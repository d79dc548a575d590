"""What a plan trains on, from manifest and params; and everything that decides the result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import environment, manifest, splits, stamps
from pipeline.embeddings import skipped
from pipeline.manifest import Manifest
from pipeline.nn import backbones, embedding
from pipeline.nn.backbones import Loaded
from pipeline.nn.embedding import Item
from pipeline.nn.finetuning.task import Task
from pipeline.params import Params

CODE = Path(__file__).parents[2]
"""The folder of the pipeline's code."""


@dataclass(frozen=True)
class Inputs:
    """A task with the network to train, which training changes in place."""

    table: Manifest
    row: Sequence[int]
    """(N,) the manifest's row of every item of the task."""
    loaded: Loaded
    task: Task
    made_from: Mapping[str, str]
    """Locator -> sha256 of what the result will have been made from."""


def read(params: Params, backbone: str) -> Inputs:
    """Read what plans train on; the images are those that `embed` could decode.

    Raises:
        StateError: if the manifest, or the list of what `embed` skipped, is missing, altered or of other settings.

    """
    table = manifest.read()
    table.require_folder(params.data.folder)
    loaded = backbones.load(backbone, params.backbone(backbone))
    loaded = replace(loaded, framing=loaded.framing_for(params.embed))
    left_out = skipped.read_for(backbone, embedding.recipe_of(loaded.identity, params.embed))
    kept = [row for row in range(len(table)) if table.image_id[row] not in left_out]
    splits.require_left(table, kept, "the others of its images cannot be decoded")
    made_from = {
        **stamps.read(manifest.STAMP).outputs,
        **stamps.hashes([skipped.path_of(backbone)]),
        loaded.weights: str(loaded.identity["weights_sha256"]),
    }
    return Inputs(table, kept, loaded, _task(table, kept), made_from)


def decisive(params: Params, plan: str, given: Inputs) -> dict[str, Any]:
    """Return everything that decides the result of a training, the code and the libraries included."""
    code = [*sorted((CODE / "nn").rglob("*.py")), CODE / "images.py", CODE / "evaluation/metrics.py"]
    return {
        "plan": params.plan(plan).model_dump(),
        "network": given.loaded.identity,
        "framing": given.loaded.framing,
        "runtime": params.embed.runtime,
        "metric": params.selection.metric,
        "seed": params.seed,
        "made_from": given.made_from,
        "images": [given.table.image_id[row] for row in given.row],
        "code": [stamps.sha256_file(path) for path in code],
        "libraries": environment.versions(),
    }


def _task(table: Manifest, kept: Sequence[int]) -> Task:
    number = {name: place for place, name in enumerate(table.classes)}
    dealt = np.array([table.split[row] for row in kept])
    return Task(
        items=[Item(Path(table.path[row]), table.sha256[row]) for row in kept],
        targets=np.array([number[table.label[row]] for row in kept], dtype=np.int64),
        classes=len(table.classes),
        train=np.flatnonzero(dealt == "train"),
        val=np.flatnonzero(dealt == "val"),
        test=np.flatnonzero(dealt == "test"),
    )
