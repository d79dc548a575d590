"""Shards: immutable HDF5 files of rows, named by the sha256 of their bytes and checked before HDF5 reads them."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import stamps
from pipeline.core.atomic import creating, write_json
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.embeddings import hdf5
from pipeline.embeddings.hdf5 import Array, Floats

# To change a shard's layout: raise this number. It is part of every recipe, so old shards are simply no longer found;
# `headswap cache --prune` deletes them.
SCHEMA_VERSION = 2

Recipe = Mapping[str, Any]
Keys = npt.NDArray[np.bytes_]
"""(N,) of 34 bytes: 32 of the sha256, 2 of the view's number."""

KEY = np.dtype("S34")


def keys_of(sha256: Iterable[str], views: Iterable[int] | None = None) -> Keys:
    """Turn hexadecimal hashes and as many view numbers (all 0 unless given) into keys (N,)."""
    hashes = [bytes.fromhex(one) for one in sha256]
    numbers = [0] * len(hashes) if views is None else views
    joined = b"".join(one + view.to_bytes(2, "big") for one, view in zip(hashes, numbers, strict=True))
    return np.frombuffer(joined, KEY)


def sha256_of(keys: Keys) -> npt.NDArray[np.uint8]:
    """Return the hashes in keys (N,): (N, 32)."""
    return np.ascontiguousarray(keys).view(np.uint8).reshape(-1, KEY.itemsize)[:, :32]


def _keys(sha256: npt.NDArray[np.uint8], view: npt.NDArray[np.uint16]) -> Keys:
    both = np.concatenate([sha256, view.astype(">u2").view(np.uint8).reshape(-1, 2)], axis=1)
    return np.ascontiguousarray(both).view(KEY).reshape(-1)


def _views(keys: Keys) -> npt.NDArray[np.uint16]:
    last = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, KEY.itemsize)[:, 32:]
    return np.ascontiguousarray(last).view(">u2").reshape(-1).astype(np.uint16)


@dataclass(frozen=True)
class Shard:
    """One file of the cache: n rows, and the pass that made them."""

    path: Path
    keys: Keys
    features: Floats
    """(n, ...)."""
    cost: Cost
    """Its `images` is n."""
    created_ns: int
    worker: str = ""
    """Who computed it, where several do; else empty."""


def add(root: Path, recipe: Recipe, keys: Keys, features: Floats, cost: Cost, worker: str) -> Shard:
    """Add rows to a cache without looking at what else it holds; see `EmbeddingCache.append`."""
    folder = root / stamps.sha256_json(recipe)
    if not (folder / "recipe.json").exists():
        write_json(folder / "recipe.json", dict(recipe))
    return write_shard(folder, keys, features, cost, time.time_ns(), worker)


def write_shard(folder: Path, keys: Keys, features: Floats, cost: Cost, created_ns: int, worker: str = "") -> Shard:
    """Write rows (n, ...) under keys (n,) as a file that is named by its content and whole or not there at all."""
    buffer = BytesIO()
    with hdf5.create(buffer) as file:
        hdf5.store(file, "features", features)
        hdf5.store(file, "sha256", sha256_of(keys))
        hdf5.store(file, "view", _views(keys))
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["recipe_sha256"] = folder.name
        file.attrs["seconds"] = cost.seconds
        file.attrs["cpu_seconds"] = cost.cpu_seconds
        file.attrs["peak_memory"] = cost.peak_memory
        file.attrs["running_seconds"] = cost.running_seconds
        file.attrs["running_images"] = cost.running_images
        if cost.joules is not None:
            file.attrs["joules"] = cost.joules
        file.attrs["created_ns"] = created_ns
        if worker:
            file.attrs["worker"] = worker
    content = buffer.getvalue()
    path = folder / f"{stamps.sha256_bytes(content)}.h5"
    with creating(path) as temporary:
        temporary.write_bytes(content)
    return Shard(path, keys, features, replace(cost, images=len(keys)), created_ns, worker)


def read_shard(path: Path) -> Shard:
    """Read a shard whose bytes hash to its name; StateError for any other, and for more than plain data."""
    content = stamps.read_bytes(path)
    _require_unaltered(path, stamps.sha256_bytes(content))
    with hdf5.parse(content, path) as file:
        if hdf5.text(file, "recipe_sha256", path) != path.parent.name:
            raise StateError(f"{path}: belongs to another recipe; delete it")
        part = partial(hdf5.values, file, path=path, content=content)
        sha256, view, features = part("sha256"), part("view"), part("features")
        keys = _joined(sha256, view, features, path)
        number = partial(hdf5.number, file, path=path)
        optional = ("peak_memory", "joules", "running_seconds", "running_images")  # older shards lack them
        known = {name: number(name) for name in optional if name in file.attrs}
        known["peak_memory"] = int(known.get("peak_memory", 0))
        cost = Cost(number("seconds"), number("cpu_seconds"), len(sha256), **known)  # type: ignore[arg-type]
        worker = hdf5.text(file, "worker", path) if "worker" in file.attrs else ""
        return Shard(path, keys, features, cost, int(number("created_ns")), worker)


def map_shard(path: Path) -> tuple[Keys, Floats]:
    """Return the keys (n,) of a shard, and its features (n, ...) mapped from its file; StateError as `read_shard`."""
    with stamps.hashed(path) as (stream, found):
        _require_unaltered(path, found)
        sha256, view, features = hdf5.mapped(stream, ["sha256", "view", "features"], path)
    return _joined(sha256, view, features, path), features


def _joined(sha256: Array, view: Array, features: Floats, path: Path) -> Keys:
    """Return the keys (n,) in a shard of n rows; StateError unless all its parts have as many, of their types."""
    numbers = features.dtype.kind in "fu"  # of a network, or bytes of a picture's signature
    like = sha256.dtype == np.uint8 and view.dtype == np.uint16 and numbers
    like &= sha256.shape[1:] == (32,) and view.shape == (len(sha256),) == features.shape[:1] and len(view) > 0
    if not like:
        raise StateError(f"{path}: sha256, view and features do not belong together; delete it")
    return _keys(sha256, view)


def _require_unaltered(path: Path, sha256: str) -> None:
    if sha256 != path.stem:
        raise StateError(f"{path}: altered since it was written; delete it, and its rows are computed again")
