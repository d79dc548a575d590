"""EmbeddingCache: every row that was ever computed, in immutable shards outside DVC's outputs.

A shard's name is the sha256 of its bytes, so it is checked before HDF5 parses it, and two writers can only ever add.
A row's key is the sha256 of an image file's bytes and the number of the view (0: the image as it is); the recipe is
everything else that decides its numbers, up to the last bits, in which runtimes and batch sizes differ: there the
older row stays.
"""

import resource
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline import stamps
from pipeline.atomic import replacing, write_json
from pipeline.cost import Cost
from pipeline.embeddings import hdf5
from pipeline.embeddings.hdf5 import Floats
from pipeline.embeddings.stored import Stored
from pipeline.errors import StateError

# To change a shard's layout: raise this number. It is part of every recipe, so old shards are simply no longer found;
# `headswap cache --prune` deletes them.
SCHEMA_VERSION = 2

Ints = npt.NDArray[np.intp]
Recipe = Mapping[str, Any]
Keys = npt.NDArray[np.bytes_]
"""(N,) of 34 bytes: 32 of the sha256, 2 of the view's number."""

_KEY = np.dtype("S34")


def keys_of(sha256: Iterable[str], views: Iterable[int] | None = None) -> Keys:
    """Turn hexadecimal hashes and as many view numbers (all 0 unless given) into keys (N,)."""
    hashes = [bytes.fromhex(one) for one in sha256]
    numbers = [0] * len(hashes) if views is None else views
    joined = b"".join(one + view.to_bytes(2, "big") for one, view in zip(hashes, numbers, strict=True))
    return np.frombuffer(joined, _KEY)


def sha256_of(keys: Keys) -> npt.NDArray[np.uint8]:
    """Return the hashes in keys (N,): (N, 32)."""
    return np.ascontiguousarray(keys).view(np.uint8).reshape(-1, _KEY.itemsize)[:, :32]


def _keys(sha256: npt.NDArray[np.uint8], view: npt.NDArray[np.uint16]) -> Keys:
    both = np.concatenate([sha256, view.astype(">u2").view(np.uint8).reshape(-1, 2)], axis=1)
    return np.ascontiguousarray(both).view(_KEY).reshape(-1)


def _views(keys: Keys) -> npt.NDArray[np.uint16]:
    last = np.ascontiguousarray(keys).view(np.uint8).reshape(-1, _KEY.itemsize)[:, 32:]
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


@dataclass(frozen=True)
class _Listed:
    """What the index keeps of a shard."""

    path: Path
    cost: Cost
    created_ns: int
    row_shape: tuple[int, ...]
    dtype: np.dtype[Any]


class EmbeddingCache:
    """The rows that were ever computed under one recipe, in immutable shards that many writers may add to.

    Args:
        root: the folder of all recipes; it may be shared by repositories and machines.
        recipe: everything besides the image's bytes and the view that decides a row.

    Raises:
        StateError: if a shard's bytes are not those its name promises, or are more than plain data.

    """

    def __init__(self, root: Path, recipe: Recipe) -> None:
        self.folder = root / stamps.sha256_json(recipe)
        self.recipe = recipe
        paths = list(self.folder.glob("*.h5"))
        with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
            found = list(pool.map(lambda path: _listed(read_shard(path)), paths))
        found.sort(key=lambda pair: (pair[0].created_ns, pair[0].path))
        self._shards = [listed for listed, _ in found]
        self._keys = [keys for _, keys in found]
        self._index: _Index | None = None

    def missing(self, keys: Keys) -> Ints:
        """Return the positions in keys (N,) whose rows must be computed, ascending; of equal keys only the first."""
        distinct, first = np.unique(keys, return_index=True)
        return np.sort(first[self._find(distinct) < 0])

    def append(self, keys: Keys, features: Floats, cost: Cost) -> None:
        """Add rows: keys (n,), features (n, ...). They are on disk, whole, when this returns."""
        if not (self.folder / "recipe.json").exists():
            write_json(self.folder / "recipe.json", dict(self.recipe))
        shard = write_shard(self.folder, keys, features, cost, time.time_ns())
        listed, keys = _listed(shard)
        self._shards.append(listed)
        self._keys.append(keys)
        self._index = None

    def blocks(self, keys: Keys) -> Iterator[tuple[Ints, Floats]]:
        """Yield (positions in keys, their rows), a shard at a time; StateError if a row is not here."""
        shard_of, row_of = self._located(keys)
        order = np.argsort(shard_of, kind="stable")
        for positions in np.split(order, np.flatnonzero(np.diff(shard_of[order])) + 1):
            if len(positions):
                shard = read_shard(self._shards[shard_of[positions[0]]].path)
                yield positions, shard.features[row_of[positions]]

    def stored(self, keys: Keys) -> Stored:
        """Return the rows of keys (N,) mapped from their shards, unread; StateError if one is not here or altered."""
        shard_of, row_of = self._located(keys)
        used, part_of = np.unique(shard_of, return_inverse=True)
        _allow_open_files(len(used))
        parts = [map_features(self._shards[shard].path) for shard in used]
        starts = np.cumsum([0, *(len(part) for part in parts)])
        return Stored(parts, starts[part_of] + row_of)

    def row_shape(self) -> tuple[int, ...]:
        """Return the shape of one row; StateError if there is none."""
        if not self._shards:
            raise StateError("no image could be embedded; see the skipped ones")
        return self._shards[0].row_shape

    def cost(self, keys: Keys) -> Cost:
        """Return what the passes that made the rows of keys (N,) took.

        A shard's cost counts in proportion to its rows used, its peak memory whole; images that share their bytes share
        one row and its cost.
        """
        total = Cost()
        places = np.unique(self._find(keys))
        for shard, used in enumerate(np.bincount(self._indexed().shard[places[places >= 0]]).tolist()):
            if used:
                cost = self._shards[shard].cost
                part = cost * (used / cost.images)
                part.images = used
                total += part
        return total

    def _located(self, keys: Keys) -> tuple[Ints, Ints]:
        """Return each key's shard and the row in it, both (N,); StateError if one is not here."""
        places, index = self._find(keys), self._indexed()
        if (places < 0).any():
            raise StateError(f"{self.folder}: {int((places < 0).sum())} rows are not in the cache")
        return index.shard[places], index.row[places]

    def _find(self, keys: Keys) -> Ints:
        """Return each key's place in the index, -1 where there is none: (N,)."""
        index = self._indexed()
        if not len(index.keys):
            return np.full(len(keys), -1)
        places = np.minimum(np.searchsorted(index.keys, keys), len(index.keys) - 1)
        return np.where(index.keys[places] == keys, places, -1)

    def _indexed(self) -> "_Index":
        if self._index is None:
            self._index = _Index(self._keys)
        return self._index


class _Index:
    """Distinct keys in order, each with the shard and row that hold it; of equal ones the oldest shard's stays."""

    def __init__(self, by_age: list[Keys]) -> None:
        sizes = [len(keys) for keys in by_age]
        joined = np.concatenate([np.empty(0, _KEY), *by_age])
        self.keys, first = np.unique(joined, return_index=True)  # the first occurrence is the oldest
        self.shard = np.repeat(np.arange(len(sizes)), sizes)[first]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)
        self.row = first - starts[self.shard]


def _listed(shard: Shard) -> tuple[_Listed, Keys]:
    features = shard.features
    return _Listed(shard.path, shard.cost, shard.created_ns, features.shape[1:], features.dtype), shard.keys


def write_shard(folder: Path, keys: Keys, features: Floats, cost: Cost, created_ns: int) -> Shard:
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
    content = buffer.getvalue()
    path = folder / f"{stamps.sha256_bytes(content)}.h5"
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return Shard(path, keys, features, replace(cost, images=len(keys)), created_ns)


def read_shard(path: Path) -> Shard:
    """Read a shard whose bytes hash to its name; StateError for any other, and for more than plain data."""
    content = stamps.read_bytes(path)
    _require_unaltered(path, stamps.sha256_bytes(content))
    with hdf5.parse(content, path) as file:
        if hdf5.text(file, "recipe_sha256", path) != path.parent.name:
            raise StateError(f"{path}: belongs to another recipe; delete it")
        part = partial(hdf5.values, file, path=path, content=content)
        sha256, view, features = part("sha256"), part("view"), part("features")
        if sha256.shape[1:] != (32,) or not view.shape == (len(sha256),) == features.shape[:1] or not len(view):
            raise StateError(f"{path}: sha256, view and features do not belong together; delete it")
        number = partial(hdf5.number, file, path=path)
        optional = ("peak_memory", "joules", "running_seconds", "running_images")  # older shards lack them
        known = {name: number(name) for name in optional if name in file.attrs}
        known["peak_memory"] = int(known.get("peak_memory", 0))
        cost = Cost(number("seconds"), number("cpu_seconds"), len(sha256), **known)  # type: ignore[arg-type]
        return Shard(path, _keys(sha256, view), features, cost, int(number("created_ns")))


def map_features(path: Path) -> Floats:
    """Map the features (n, ...) of a shard from its file, read-only; StateError as `read_shard`."""
    with stamps.hashed(path) as (stream, sha256):
        _require_unaltered(path, sha256)
        return hdf5.mapped(stream, "features", path)


def _allow_open_files(number: int) -> None:
    """Raise this process's limit of open files, as far as it may, for that many mapped ones beside the usual."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + 1024
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _require_unaltered(path: Path, sha256: str) -> None:
    if sha256 != path.stem:
        raise StateError(f"{path}: altered since it was written; delete it, and its rows are computed again")
