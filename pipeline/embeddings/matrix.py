"""Embeddings: the aligned matrix, one row per usable image in manifest order, and augmented rows of training images.

The file is a pure function of manifest and recipe, byte for byte. It is written and read without ever being held whole
in memory: features are one contiguous block, so rows are put where they belong as the cache yields them, and a reader
maps the block and touches only the rows it asks for.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from pipeline.embeddings import hdf5, placing
from pipeline.embeddings.hdf5 import Floats
from pipeline.embeddings.placing import Block

# To change the file's layout: raise this number. `read` then refuses older files and says to run the stage again.
SCHEMA_VERSION = 2

_BLOCK = 4096
"""Rows that are copied at a time."""

Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Augmented:
    """M further rows: views of training images under a recipe that says how they were changed."""

    features: Floats
    """(M, D)."""
    row: Ints
    """(M,) the row of the image each is a view of."""
    recipe: Mapping[str, Any]


@dataclass(frozen=True)
class Embeddings:
    """One row per usable image, in manifest order: N rows of D features."""

    features: Floats
    """(N, D), in the recipe's dtype; read-only and mapped from the file, so that only rows in use take memory."""
    sha256: npt.NDArray[np.uint8]
    """(N, 32), of the image files' bytes."""
    image_id: Sequence[str]
    recipe: Mapping[str, Any]
    manifest_sha256: str
    augmented: Augmented | None = None


@dataclass(frozen=True)
class Rows:
    """Rows on their way into a file: their shape (N, D), and blocks of them in any order, each position once."""

    shape: tuple[int, int]
    dtype: npt.DTypeLike
    recipe: Mapping[str, Any]
    blocks: Iterable[Block]


matrix_path, stamp_path, cost_path = EMBEDDINGS.at, EMBEDDINGS.stamp_at, COST.at
"""Of a backbone. The cost of its rows is written apart from the stamp, for seconds never repeat."""


def is_stamp(path: Path) -> bool:
    """Return whether a path is where some matrix's stamp lies: costs and skipped images lie beside it."""
    return path == stamp_path(path.name.partition(".")[0])


def write(
    path: Path,
    sha256: npt.NDArray[np.uint8],
    image_id: Sequence[str],
    manifest_sha256: str,
    rows: Rows,
    augmented: tuple[Rows, Ints] | None = None,
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
        StateError: if the disk is full, or the blocks leave a position out.

    """
    with replacing(path) as temporary:
        try:
            puts: list[tuple[Rows, int]] = []
            with hdf5.create(temporary) as file:
                puts.append((rows, _head(file, rows)))
                hdf5.store(file, "sha256", sha256)
                hdf5.store(file, "image_id", np.array([name.encode() for name in image_id]))
                file.attrs["schema_version"] = SCHEMA_VERSION
                file.attrs["manifest_sha256"] = manifest_sha256
                if augmented is not None:
                    group = file.create_group("augmented")
                    puts.append((augmented[0], _head(group, augmented[0])))
                    hdf5.store(group, "row", augmented[1].astype(np.int64))
            for content, offset in puts:
                placing.put(temporary, offset, content.shape, content.dtype, content.blocks)
        except (OSError, RuntimeError) as error:  # HDF5 reports a full disk as either
            raise StateError(f"{path.parent}: cannot write ({error}); is the disk full?") from error


def _head(group: h5py.Group, rows: Rows) -> int:
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
        size = os.fstat(stream.fileno()).st_size

        def mapped(name: str) -> npt.NDArray[Any]:
            offset, shape, dtype = hdf5.place(file, name, path, size)
            if 0 in shape:
                return np.empty(shape, dtype)
            return np.asarray(np.memmap(stream, dtype, "r", offset, shape))

        return Embeddings(
            features=mapped("features"),
            sha256=mapped("sha256"),
            image_id=[name.decode() for name in mapped("image_id").tolist()],
            recipe=json.loads(hdf5.text(file, "recipe", path)),
            manifest_sha256=hdf5.text(file, "manifest_sha256", path),
            augmented=_augmented(file, path, mapped) if hdf5.has(file, "augmented") else None,
        )


def _augmented(file: h5py.File, path: Path, mapped: Callable[[str], npt.NDArray[Any]]) -> Augmented:
    features, row = mapped("augmented/features"), mapped("augmented/row")
    return Augmented(features, row, json.loads(hdf5.text(file["augmented"], "recipe", path)))


def forget(backbone: str, images: npt.NDArray[np.uint8], *, dry: bool) -> int:
    """Remove the rows of some images (n, 32) from a matrix and its stamp, and say how many, further views included.

    The other rows stay bit for bit the same. A matrix whose bytes are not the stamped ones, as a kill between matrix
    and stamp leaves it, cannot be shown not to hold the images: it is removed, and made anew of the cached rows when
    `dvc repro` asks for it; it counts no rows.
    """
    path, stamp_at = matrix_path(backbone), stamp_path(backbone)
    try:
        stamp, old = stamps.read(stamp_at), read(backbone)
    except StateError:
        for left in () if dry else (path, stamp_at):
            left.unlink(missing_ok=True)
        return 0
    keep = ~np.isin(comparable(old.sha256), comparable(images))
    further = keep[old.augmented.row] if old.augmented else np.empty(0, bool)
    if not dry and not keep.all():
        _write_kept(path, old, keep)
        stamps.write(stamp_at, replace(stamp, outputs={**stamp.outputs, **stamps.hashes([path])}))
    return int((~keep).sum() + (~further).sum())


def comparable(sha256: npt.NDArray[np.uint8]) -> npt.NDArray[np.bytes_]:
    """Return hashes (n, 32) as single values (n,)."""
    return np.ascontiguousarray(sha256).view("S32").reshape(-1)


def _write_kept(path: Path, old: Embeddings, keep: npt.NDArray[np.bool_]) -> None:
    """Write some rows of a matrix over it: what is mapped stays the old file until it is let go of."""
    augmented = None
    if old.augmented is not None:
        views = np.flatnonzero(keep[old.augmented.row])
        row = (np.cumsum(keep) - 1)[old.augmented.row[views]]
        augmented = (_chosen(old.augmented.features, views, old.augmented.recipe), row)
    rows = np.flatnonzero(keep)
    image_id = [old.image_id[row] for row in rows.tolist()]
    write(path, old.sha256[rows], image_id, old.manifest_sha256, _chosen(old.features, rows, old.recipe), augmented)


def _chosen(features: Floats, rows: Ints, recipe: Mapping[str, Any]) -> Rows:
    blocks = (np.arange(start, min(start + _BLOCK, len(rows))) for start in range(0, len(rows), _BLOCK))
    shape = (len(rows), features.shape[1])
    return Rows(shape, features.dtype, recipe, ((block, features[rows[block]]) for block in blocks))


def require_recipe(embedded: Embeddings, backbone: str, params: Params) -> None:
    """Raise StateError if the embeddings were made by other settings than params.yaml states now."""
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
    """Return what the passes behind a backbone's matrix took; StateError if that is not known."""
    path = cost_path(backbone)
    try:
        return Cost(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise StateError(f"{path}: missing or malformed; run `dvc repro --force`") from error
