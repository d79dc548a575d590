"""Shards: immutable HDF5 files of rows, named by the sha256 of their bytes; and the keys of the rows."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import stamps
from pipeline.core.atomic import creating, write_json
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.embeddings import hdf5
from pipeline.embeddings.hdf5 import Array, Floats

# To change a shard's layout: raise this number. It is part of every recipe, so the cache no longer finds older shards;
# `headswap cache --prune` deletes them.
SCHEMA_VERSION = 2

Recipe = Mapping[str, Any]
Ints = npt.NDArray[np.intp]
Keys = npt.NDArray[np.bytes_]
"""(N,) keys of 34 bytes: the sha256, and 2 bytes for the view's number."""

KEY = np.dtype("S34")


def keys_of(sha256: Iterable[str], views: Iterable[int] | None = None) -> Keys:
    """Return the keys (N,) of images by their hexadecimal hashes, each in the view of that number, 0 unless given."""
    hashes = [bytes.fromhex(one) for one in sha256]
    numbers = [0] * len(hashes) if views is None else views
    joined = b"".join(one + view.to_bytes(2, "big") for one, view in zip(hashes, numbers, strict=True))
    return np.frombuffer(joined, KEY)


def sha256_of(keys: Keys) -> npt.NDArray[np.uint8]:
    """Return the hashes in keys (N,): (N, 32)."""
    return np.ascontiguousarray(keys).view(np.uint8).reshape(-1, KEY.itemsize)[:, :32]


def positions_of(keys: Keys, among: Keys) -> Ints:
    """Return the position of each of `keys` (N,) in `among` (M,), the first of several, or -1: (N,).

    Arrow's hash table does it: sorting millions of strings would take minutes.
    """
    found = pc.index_in(_arrow(keys), value_set=_arrow(among))
    return np.asarray(pc.fill_null(found, -1).to_numpy(), np.intp)


def _arrow(keys: Keys) -> Any:  # noqa: ANN401  # pyarrow has no types
    """Wrap keys without copying; Arrow's array of fixed-length values is limited to 2 GB, this one is not."""
    size = keys.dtype.itemsize
    offsets = np.arange(len(keys) + 1, dtype=np.int64) * size
    content = np.ascontiguousarray(keys).view(np.uint8)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(content)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(keys), buffers)


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
    """Its `images` equals n."""
    created_ns: int
    worker: str = ""
    """The worker that computed it; empty if this process did."""


def add(root: Path, recipe: Recipe, keys: Keys, features: Floats, cost: Cost, worker: str) -> Shard:
    """Add rows to a cache without reading what it holds; see `EmbeddingCache.append`."""
    folder = root / stamps.sha256_json(recipe)
    if not (folder / "recipe.json").exists():
        write_json(folder / "recipe.json", dict(recipe))
    return write_shard(folder, keys, features, cost, time.time_ns(), worker)


def write_shard(folder: Path, keys: Keys, features: Floats, cost: Cost, created_ns: int, worker: str = "") -> Shard:
    """Write rows (n, ...) under keys (n,) as a file named by its content, all or nothing."""
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
    """Read a shard; StateError if its bytes do not hash to its name, or if it holds more than plain data."""
    content = stamps.read_bytes(path)
    _require_unaltered(path, stamps.sha256_bytes(content))
    with hdf5.parse(content, path) as file:
        if hdf5.text(file, "recipe_sha256", path) != path.parent.name:
            raise StateError(f"{path}: belongs to another recipe; delete it")
        part = partial(hdf5.values, file, path=path, content=content)
        sha256, view, features = part("sha256"), part("view"), part("features")
        keys = _checked_keys(sha256, view, features, path)
        number = partial(hdf5.number, file, path=path)
        optional = ("peak_memory", "joules", "running_seconds", "running_images")  # older shards lack these
        known = {name: number(name) for name in optional if name in file.attrs}
        known["peak_memory"] = int(known.get("peak_memory", 0))
        cost = Cost(number("seconds"), number("cpu_seconds"), len(sha256), **known)  # type: ignore[arg-type]
        worker = hdf5.text(file, "worker", path) if "worker" in file.attrs else ""
        return Shard(path, keys, features, cost, int(number("created_ns")), worker)


def map_shard(path: Path) -> tuple[Keys, Floats]:
    """Return a shard's keys (n,), and its features (n, ...) mapped from the file; StateError as `read_shard`."""
    with stamps.hashed(path) as (stream, found):
        _require_unaltered(path, found)
        sha256, view, features = hdf5.mapped(stream, ["sha256", "view", "features"], path)
    return _checked_keys(sha256, view, features, path), features


def _checked_keys(sha256: Array, view: Array, features: Floats, path: Path) -> Keys:
    """Return the keys (n,) of a shard; StateError unless its data sets have one length n > 0 and the right types."""
    # Features are a network's output, or the bytes of an image's signature.
    typed = sha256.dtype == np.uint8 and view.dtype == np.uint16 and features.dtype.kind in "fu"
    if not typed or sha256.shape[1:] != (32,) or not (view.shape == (len(sha256),) == features.shape[:1] and len(view)):
        raise StateError(f"{path}: sha256, view and features do not belong together; delete it")
    return _keys(sha256, view)


def _require_unaltered(path: Path, sha256: str) -> None:
    if sha256 != path.stem:
        raise StateError(f"{path}: altered since it was written; delete it, and its rows are computed again")
