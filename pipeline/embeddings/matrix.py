"""Embeddings: the aligned matrix, one row per usable image in manifest order, and augmented rows of training images.

The file is a pure function of manifest and recipe, byte for byte. It is never held in memory as a whole: features are
one contiguous block, so a writer puts each row at its position as the cache yields it, and a reader maps the block and
touches only the rows it asks for.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pipeline.core import stamps
from pipeline.core.artifacts import COST, EMBEDDINGS
from pipeline.core.atomic import replacing
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.core.params import Params
from pipeline.embeddings import hdf5
from pipeline.embeddings.hdf5 import Floats
from pipeline.embeddings.row_writer import Block, write_rows

# To change the file's layout: raise this number. `read` then refuses older files and says to run the stage again.
SCHEMA_VERSION = 2

_BLOCK = 4096
"""Rows copied at a time."""

Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Augmented:
    """M further rows: augmented views of training images, and the recipe of the views."""

    features: Floats
    """(M, D)."""
    row: Ints
    """(M,) for each, the row of the image it is a view of."""
    recipe: Mapping[str, Any]


@dataclass(frozen=True)
class Embeddings:
    """One row per usable image, in manifest order: N rows of D features."""

    features: Floats
    """(N, D), in the recipe's dtype, mapped read-only from the file: only the rows in use take memory."""
    sha256: npt.NDArray[np.uint8]
    """(N, 32) hashes of the image files' bytes."""
    image_id: Sequence[str]
    recipe: Mapping[str, Any]
    manifest_sha256: str
    augmented: Augmented | None = None


@dataclass(frozen=True)
class RowBlocks:
    """Rows to write: their shape (N, D), and blocks of them in any order, each position once."""

    shape: tuple[int, int]
    dtype: npt.DTypeLike
    recipe: Mapping[str, Any]
    blocks: Iterable[Block]


matrix_path, stamp_path, cost_path = EMBEDDINGS.at, EMBEDDINGS.stamp_at, COST.at
"""A backbone's files. The cost of its rows is not part of the stamp: seconds differ from run to run."""


def is_stamp(path: Path) -> bool:
    """Return whether a path is that of a matrix's stamp, and not of the costs or skipped images beside it."""
    return path == stamp_path(path.name.partition(".")[0])


def write(
    path: Path,
    sha256: npt.NDArray[np.uint8],
    image_id: Sequence[str],
    manifest_sha256: str,
    rows: RowBlocks,
    augmented: tuple[RowBlocks, Ints] | None = None,
) -> None:
    """Write a matrix; equal content gives equal bytes.

    Args:
        path: of the file, replaced whole or not at all.
        sha256: (N, 32), of the images' bytes.
        image_id: N names.
        manifest_sha256: of the manifest whose order this is.
        rows: the N features.
        augmented: M further rows, and for each the row of its image.

    Raises:
        StateError: if the disk is full, or a position is in no block.

    """
    with replacing(path) as temporary:
        try:
            parts: list[tuple[RowBlocks, int]] = []
            with hdf5.create(temporary) as file:
                parts.append((rows, _reserve(file, rows)))
                hdf5.store(file, "sha256", sha256)
                hdf5.store(file, "image_id", np.array([name.encode() for name in image_id]))
                file.attrs["schema_version"] = SCHEMA_VERSION
                file.attrs["manifest_sha256"] = manifest_sha256
                if augmented is not None:
                    group = file.create_group("augmented")
                    parts.append((augmented[0], _reserve(group, augmented[0])))
                    hdf5.store(group, "row", augmented[1].astype(np.int64))
            for part, offset in parts:
                write_rows(temporary, offset, part.shape, part.dtype, part.blocks)
        except (OSError, RuntimeError) as error:  # HDF5 reports a full disk as either
            raise StateError(f"{path.parent}: cannot write ({error}); is the disk full?") from error


def _reserve(group: h5py.Group, rows: RowBlocks) -> int:
    """Write the recipe and allocate the features; return the offset at which they belong."""
    group.attrs["recipe"] = stamps.canonical_json(rows.recipe)
    group.attrs["recipe_sha256"] = stamps.sha256_json(rows.recipe)
    return hdf5.reserve(group, "features", rows.shape, rows.dtype)


def read(backbone: str) -> Embeddings:
    """Read a backbone's matrix, after checking its bytes against the stamp.

    Raises:
        StateError: if it is missing, altered, of another version, or more than plain data.

    """
    path = matrix_path(backbone)
    with stamps.checked(path, stamps.read(stamp_path(backbone))) as stream, h5py.File(stream, "r") as file:
        version = hdf5.number(file, "schema_version", path)
        if version != SCHEMA_VERSION:
            raise StateError(f"{path}: schema_version: got {version}, expected {SCHEMA_VERSION}; run `dvc repro`")
        features, sha256, image_id = hdf5.mapped(stream, ["features", "sha256", "image_id"], path)
        augmented = None
        if hdf5.has(file, "augmented"):
            views, row = hdf5.mapped(stream, ["augmented/features", "augmented/row"], path)
            augmented = Augmented(views, row, json.loads(hdf5.text(file["augmented"], "recipe", path)))
        return Embeddings(
            features,
            sha256,
            [name.decode() for name in image_id.tolist()],
            json.loads(hdf5.text(file, "recipe", path)),
            hdf5.text(file, "manifest_sha256", path),
            augmented,
        )


def forget(backbone: str, images: npt.NDArray[np.uint8], *, dry: bool) -> int:
    """Remove the rows of some images (n, 32) from a matrix and its stamp; return how many, further views included.

    The other rows stay bit for bit the same. If a kill between matrix and stamp left bytes that the stamp does not
    vouch for, nothing shows whether the matrix holds the images: it is removed, and counts no rows; the next
    `dvc repro` makes it again from the cached rows.
    """
    path, stamp_at = matrix_path(backbone), stamp_path(backbone)
    try:
        stamp, old = stamps.read(stamp_at), read(backbone)
    except StateError:
        for file in () if dry else (path, stamp_at):
            file.unlink(missing_ok=True)
        return 0
    keep = ~np.isin(comparable(old.sha256), comparable(images))
    keep_views = keep[old.augmented.row] if old.augmented else np.empty(0, bool)
    if not dry and not keep.all():
        _write_kept(path, old, keep)
        stamps.write(stamp_at, replace(stamp, outputs={**stamp.outputs, **stamps.hashes([path])}))
    return int((~keep).sum() + (~keep_views).sum())


def comparable(sha256: npt.NDArray[np.uint8]) -> npt.NDArray[np.bytes_]:
    """Return hashes (n, 32) as single values (n,)."""
    return np.ascontiguousarray(sha256).view("S32").reshape(-1)


def _write_kept(path: Path, old: Embeddings, keep: npt.NDArray[np.bool_]) -> None:
    """Replace a matrix by some of its rows; `old`, which is mapped, still reads the old file."""
    augmented = None
    if old.augmented is not None:
        views = np.flatnonzero(keep[old.augmented.row])
        row = (np.cumsum(keep) - 1)[old.augmented.row[views]]
        augmented = (_in_blocks(old.augmented.features, views, old.augmented.recipe), row)
    rows = np.flatnonzero(keep)
    image_id = [old.image_id[row] for row in rows.tolist()]
    write(path, old.sha256[rows], image_id, old.manifest_sha256, _in_blocks(old.features, rows, old.recipe), augmented)


def _in_blocks(features: Floats, rows: Ints, recipe: Mapping[str, Any]) -> RowBlocks:
    blocks = (np.arange(start, min(start + _BLOCK, len(rows))) for start in range(0, len(rows), _BLOCK))
    shape = (len(rows), features.shape[1])
    return RowBlocks(shape, features.dtype, recipe, ((block, features[rows[block]]) for block in blocks))


def require_recipe(embedded: Embeddings, backbone: str, params: Params) -> None:
    """Raise StateError if params.yaml now states other settings than those that made the embeddings."""
    entry, settings = params.backbone(backbone), params.embed
    stated = {
        "backbone": entry.kind or backbone,
        "weights_sha256": entry.sha256,
        "layers": list(entry.layers) or None,
        "pooling": list(entry.pooling),
        "image_size": entry.image_size,
        "crop": entry.crop,
        "scaled_jpeg": settings.scaled_jpeg,
        "dtype": settings.dtype,
    }
    differing = [
        f"{matrix_path(backbone)}: {key}: got {embedded.recipe.get(key)!r}, "
        f"expected {value!r} as in params.yaml; run `dvc repro`"
        for key, value in stated.items()
        if value is not None and embedded.recipe.get(key) != value
    ]
    if differing:
        raise StateError(*differing)


def read_cost(backbone: str) -> Cost:
    """Return the cost of the passes behind a backbone's matrix; StateError if it is not known."""
    path = cost_path(backbone)
    try:
        return Cost(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise StateError(f"{path}: missing or malformed; run `dvc repro --force`") from error
