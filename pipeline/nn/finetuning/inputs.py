"""What a plan trains on, from manifest, embeddings and params; and everything that decides the result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import environment, manifest, splits, stamps
from pipeline.embeddings import matrix
from pipeline.errors import RefusedError, StateError
from pipeline.manifest import Manifest
from pipeline.nn import backbones
from pipeline.nn.backbones import Loaded
from pipeline.nn.embedding import Item
from pipeline.nn.finetuning.task import Floats, Task
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


def read(params: Params, backbone: str, plan: str) -> Inputs:
    """Read what a plan trains on; the images are those that `embed` could decode.

    Raises:
        InputError: if the plan starts from embeddings that were not made.
        StateError: if manifest or embeddings are missing, altered, or do not belong together.

    """
    settings, table = params.plan(plan), manifest.read()
    table.require_folder(params.data.folder)
    loaded = backbones.load(backbone, params.backbone(backbone))
    loaded = replace(loaded, framing=loaded.framing_for(params.embed))
    skipped = stamps.read(matrix.stamp_path(backbone)).facts["skipped"]
    kept = [row for row in range(len(table)) if table.image_id[row] not in skipped]
    splits.require_every_class([table.label[row] for row in kept], [table.split[row] for row in kept])
    made_from = {**stamps.read(manifest.STAMP).outputs, loaded.weights: str(loaded.identity["weights_sha256"])}
    if settings.start == "logistic":
        made_from |= stamps.read(matrix.stamp_path(backbone)).outputs
    task = _task(table, kept)
    if settings.start == "logistic":
        task = replace(task, embedded=_embedded(table, kept, loaded, backbone, params))
    return Inputs(table, kept, loaded, task, made_from)


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


def _embedded(table: Manifest, kept: Sequence[int], loaded: Loaded, backbone: str, params: Params) -> Floats:
    """Return the last block's averaged output from the matrix: a row for every item of the task."""
    embedded = matrix.read(backbone)
    matrix.require_recipe(embedded, backbone, params)
    wanted = f"{loaded.network.names()[-1]}/average"
    if wanted not in embedded.recipe["columns"]:
        raise RefusedError(
            f"params.yaml: plans: start: got 'logistic', which needs {wanted} among the embeddings, got "
            f"{', '.join(embedded.recipe['columns'])}; add it to backbones.{backbone}, or set start: zeros"
        )
    if list(embedded.image_id) != [table.image_id[row] for row in kept]:
        raise StateError(f"{matrix.matrix_path(backbone)}: made for another manifest; run `dvc repro`")
    start, stop = embedded.recipe["columns"][wanted]
    return np.asarray(embedded.features[:, start:stop])
