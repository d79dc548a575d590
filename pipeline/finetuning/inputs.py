"""The input of plans, from manifest and params, and the key of everything that decides a training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core import environment, stamps
from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.data.manifest import Manifest
from pipeline.data.splits import methods
from pipeline.embeddings import skipped
from pipeline.finetuning.task import Task
from pipeline.networks import backbones, frozen_pass
from pipeline.networks.backbones import Loaded
from pipeline.networks.frozen_pass import Item

CODE = Path(__file__).parents[1]
"""The folder of the pipeline's code."""
DECISIVE = ("finetuning", "networks", "data/images", "evaluation/scoring")
"""The rooms that decide the result of a plan; the stage `finetune` depends on the same."""


@dataclass(frozen=True)
class PlanInputs:
    """A task with the network that training changes in place."""

    table: Manifest
    row: Sequence[int]
    """(N,) the row in the manifest of every item of the task."""
    loaded: Loaded
    task: Task
    made_from: Mapping[str, str]
    """Path or locator -> sha256 of what the result is made from."""


def read(params: Params, backbone: str) -> PlanInputs:
    """Read the images that plans train on: those that `embed` could decode.

    Raises:
        StateError: if the manifest or the list of images that `embed` skipped is missing, altered, or made with other
            settings.

    """
    table = manifest.read()
    table.require_folder(params.data.folder)
    loaded = backbones.load(backbone, params.backbone(backbone))
    loaded = replace(loaded, framing=loaded.framing_for(params.embed))
    left_out = skipped.read_for(backbone, frozen_pass.recipe_of(loaded.identity, params.embed))
    kept = [row for row in range(len(table)) if table.image_id[row] not in left_out]
    methods.require_left(table, kept, "the others of its images cannot be decoded")
    made_from = {
        **stamps.read(manifest.STAMP).outputs,
        **stamps.hashes([skipped.path_of(backbone)]),
        loaded.weights: str(loaded.identity["weights_sha256"]),
    }
    return PlanInputs(table, kept, loaded, _task(table, kept), made_from)


def training_key(params: Params, plan: str, given: PlanInputs) -> dict[str, Any]:
    """Return everything that decides the result of a training, including the code and the libraries."""
    code = [path for room in DECISIVE for path in sorted((CODE / room).rglob("*.py"))]
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
    split = np.array([table.split[row] for row in kept])
    return Task(
        items=[Item(Path(table.path[row]), table.sha256[row]) for row in kept],
        targets=np.array([number[table.label[row]] for row in kept], dtype=np.int64),
        classes=len(table.classes),
        train=np.flatnonzero(split == "train"),
        val=np.flatnonzero(split == "val"),
        test=np.flatnonzero(split == "test"),
    )
