"""What a plan trains on, from manifest and params; and everything that decides the result."""

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
"""The rooms in it that decide a plan's result; the stage `finetune` depends on the same."""


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
    left_out = skipped.read_for(backbone, frozen_pass.recipe_of(loaded.identity, params.embed))
    kept = [row for row in range(len(table)) if table.image_id[row] not in left_out]
    methods.require_left(table, kept, "the others of its images cannot be decoded")
    made_from = {
        **stamps.read(manifest.STAMP).outputs,
        **stamps.hashes([skipped.path_of(backbone)]),
        loaded.weights: str(loaded.identity["weights_sha256"]),
    }
    return Inputs(table, kept, loaded, _task(table, kept), made_from)


def decisive(params: Params, plan: str, given: Inputs) -> dict[str, Any]:
    """Return everything that decides the result of a training, the code and the libraries included."""
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
    dealt = np.array([table.split[row] for row in kept])
    return Task(
        items=[Item(Path(table.path[row]), table.sha256[row]) for row in kept],
        targets=np.array([number[table.label[row]] for row in kept], dtype=np.int64),
        classes=len(table.classes),
        train=np.flatnonzero(dealt == "train"),
        val=np.flatnonzero(dealt == "val"),
        test=np.flatnonzero(dealt == "test"),
    )
