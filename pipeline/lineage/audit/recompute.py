"""Push some images through the frozen CNN again, to find rows that no longer match code, weights or libraries."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from pipeline.core import stamps
from pipeline.core.mismatches import Mismatch
from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.embeddings import matrix
from pipeline.embeddings.hdf5 import Floats
from pipeline.embeddings.matrix import Embeddings
from pipeline.lineage.audit.embedding_rows import alike

if TYPE_CHECKING:
    from pipeline.networks.frozen_pass import Item


@dataclass
class Recomputed:
    """Counts of the rows that were compared."""

    rows: int = 0
    identical: int = 0
    """Bit for bit; another runtime or processor differs in the last bits."""
    different: int = 0
    """By more than runtimes and processors differ."""


def recompute(params: Params, backbone: str, number: int, counts: Recomputed) -> Iterator[Mismatch]:
    """Compare random rows of a matrix with what their images give now, and count them.

    Args:
        params: as the matrix must have been made.
        backbone: whose rows.
        number: of rows, augmented views included; all, if there are fewer.
        counts: where the rows are counted.

    Raises:
        PipelineError: if weights or images cannot be read.

    """
    from pipeline.networks import backbones, frozen_pass, runtime  # noqa: PLC0415  # seconds, which only this needs

    loaded, embedded = backbones.load(backbone, params.backbone(backbone)), matrix.read(backbone)
    settings = params.embed
    path = matrix.matrix_path(backbone).as_posix()
    now = json.loads(stamps.canonical_json(frozen_pass.recipe_of(loaded.identity, settings)))  # as it is stored
    for key in sorted(key for key in {*now, *embedded.recipe} if now.get(key) != embedded.recipe.get(key)):
        yield Mismatch(path, repr(now.get(key)), repr(embedded.recipe.get(key)), f"recipe: {key}")
    stored = _sample(params, embedded, number)
    again = frozen_pass.rows(
        list(stored),
        runtime.lazy(loaded.network, settings.runtime),
        loaded.framing_for(settings),
        settings.batch_size,
        partial(frozen_pass.load, augment=settings.augment),
    )
    with tqdm(total=len(stored), desc=f"recompute {backbone}", unit="image", disable=None) as bar:
        for batch, rows in again:
            bar.update(len(batch))
            yield from _compare(path, batch, rows, np.stack([stored[item] for item in batch]), counts)


def _compare(path: str, items: list["Item"], rows: Floats, stored: Floats, counts: Recomputed) -> Iterator[Mismatch]:
    now = rows.astype(stored.dtype)
    same = alike(now, stored)
    counts.rows += len(items)
    counts.identical += sum(one.tobytes() == other.tobytes() for one, other in zip(now, stored, strict=True))
    counts.different += int((~same).sum())
    for position in np.flatnonzero(~same):
        item = items[position]
        view = f", view {item.view}" if item.view else ""
        yield Mismatch(path, "the row that the image gives now", "another", f"{item.path}{view}")


def _sample(params: Params, embedded: Embeddings, number: int) -> Mapping["Item", Floats]:
    """Draw random rows, of plain images and of augmented views; nobody can foresee which."""
    from pipeline.networks.frozen_pass import Item  # noqa: PLC0415

    table = manifest.read()
    table.require_folder(params.data.folder)
    path_of = dict(zip(table.image_id, table.path, strict=True))
    further = embedded.augmented
    total = len(embedded.image_id) + (len(further.row) if further else 0)
    sample: dict[Item, Floats] = {}
    for place in np.random.default_rng().choice(total, min(number, total), replace=False).tolist():
        at = place - len(embedded.image_id)
        if further and at >= 0:
            row, features = int(further.row[at]), further.features[at]
            view = at - int(np.searchsorted(further.row, row)) + 1  # the views of one image lie together, in order
        else:
            row, features, view = place, embedded.features[place], 0
        item = Item(Path(path_of[embedded.image_id[row]]), bytes(embedded.sha256[row]).hex(), view)
        sample[item] = features
    return sample
