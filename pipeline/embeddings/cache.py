"""EmbeddingCache: every row that was ever computed, in immutable shards outside DVC's outputs.

A shard's name is the sha256 of its bytes, so it is checked before HDF5 parses it, and two writers can only ever add.
A row's key is the sha256 of an image file's bytes and the number of the view (0: the image as it is); the recipe is
everything else that decides its numbers, up to the last bits, in which runtimes and batch sizes differ: there the
older row stays.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.core import stamps, systems
from pipeline.core.atomic import creating, write_json
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.embeddings import hdf5, indexes, lookup
from pipeline.embeddings.hdf5 import Array, Floats
from pipeline.embeddings.indexes import Known, Listed
from pipeline.embeddings.stored import Stored

# To change a shard's layout: raise this number. It is part of every recipe, so old shards are simply no longer found;
# `headswap cache --prune` deletes them.
SCHEMA_VERSION = 2

Ints = npt.NDArray[np.intp]
Recipe = Mapping[str, Any]
Keys = npt.NDArray[np.bytes_]
"""(N,) of 34 bytes: 32 of the sha256, 2 of the view's number."""

_KEY = np.dtype("S34")
_AHEAD = 3
"""Shards that are read, each by a thread, while the rows of the one before are used."""
SEEN_WITHIN = 60.0
"""Seconds after which a shared disk shows one machine what another has written: NFS keeps listings so long."""
PAUSE = 2.0
"""Seconds between looks for that: each goes through all keys."""
VANISHED = 0.1
"""Seconds before the folder is listed again that named a file which is not there."""

One = TypeVar("One")
Other = TypeVar("Other")


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
    worker: str = ""
    """Who computed it, where several do; else empty."""


class Added(NamedTuple):
    """What a shard that was not there before brought."""

    rows: int
    cost: Cost
    worker: str


class _Used(NamedTuple):
    """What is wanted of one shard."""

    listed: Listed
    positions: Ints
    """(n,) in the keys asked for, ascending."""
    rows: Ints
    """(n,) in the shard."""


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
        self._known = indexes.read(self.folder)
        self._in_no_index = set[str]()
        self._held: _Held | None = None
        self.refresh()

    def refresh(self) -> list[Added]:
        """Look at the folder again; return what came since, from whomever, in no order. Each shard is read once.

        A shard that `headswap cache` has merged of others counts as new, and what it is made of is gone; errors as of
        the class.
        """
        added, before = list[Added](), self._known.keys()
        while True:
            there = {path.stem: path for path in self.folder.glob("*.h5")}
            self._known = {sha256: known for sha256, known in self._known.items() if sha256 in there}
            new = [path for sha256, path in there.items() if sha256 not in self._known]
            with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
                found = [known for known in pool.map(_read_if_there, new) if known]
            for known in found:
                self._add(known)
            added += [Added(listed.rows, listed.cost, listed.worker) for listed, _ in found]
            if len(found) == len(new):
                break
            time.sleep(VANISHED)  # another one's merge has put it elsewhere, or a shared disk's listing is old
        if self._known.keys() != before:
            self._held = None
        self._in_no_index &= self._known.keys()
        self._write_index()
        return added

    def missing(self, keys: Keys) -> Ints:
        """Return the positions in keys (N,) whose rows must be computed, ascending; of equal keys only the first."""
        absent = np.flatnonzero(self._find(keys) < 0)
        return absent[lookup.firsts(keys[absent])]

    def wait_for(self, keys: Keys) -> None:
        """Return when the rows of keys (N,) are seen that other machines have written, or should have been by now."""
        self.refresh()
        until = time.monotonic() + SEEN_WITHIN
        while len(self.missing(keys)) and time.monotonic() < until:
            time.sleep(PAUSE)
            self.refresh()

    def append(self, keys: Keys, features: Floats, cost: Cost, worker: str = "") -> None:
        """Add rows: keys (n,), features (n, ...). They are on disk, whole, when this returns."""
        self._add(_known(add(self.folder.parent, self.recipe, keys, features, cost, worker)))
        self._write_index()

    def blocks(self, keys: Keys) -> Iterator[tuple[Ints, Floats]]:
        """Yield (positions in keys, their rows), a shard at a time, positions ascending; StateError if one is not here.

        The next shards are read meanwhile.
        """

        def rows(used: _Used) -> tuple[Ints, Floats]:
            path = indexes.path_of(self.folder, used.listed)
            shard = read_shard(path)
            _require_as_listed(shard.keys, shard.features, used, keys, path)
            return used.positions, shard.features[used.rows]

        with ThreadPoolExecutor(_AHEAD) as pool:
            yield from _ahead(pool, rows, self._used(keys))

    def stored(self, keys: Keys) -> Stored:
        """Return the rows of keys (N,) mapped from their shards, unread; StateError if one is not here or altered."""
        shards = list(self._used(keys))
        systems.allow_open_files(len(shards) + 1024)  # beside the usual ones
        parts: list[Floats] = []
        row_of, start = np.empty(len(keys), np.intp), 0
        for used in shards:
            path = indexes.path_of(self.folder, used.listed)
            held, features = map_shard(path)
            _require_as_listed(held, features, used, keys, path)
            row_of[used.positions] = start + used.rows
            parts.append(features)
            start += len(features)
        return Stored(parts, row_of)

    def row_shape(self) -> tuple[int, ...]:
        """Return the shape of one row; StateError if there is none."""
        if not self._known:
            raise StateError("no image could be embedded; see the skipped ones")
        return next(iter(self._known.values())).listed.row_shape

    def cost(self, keys: Keys) -> Cost:
        """Return what the passes that made the rows of keys (N,) took.

        A shard's cost counts in proportion to its rows used, its peak memory whole; images that share their bytes share
        one row and its cost.
        """
        total = Cost()
        places, held = np.unique(self._find(keys)), self._all_held()
        for shard, used in enumerate(np.bincount(held.shard_of(places[places >= 0])).tolist()):
            if used:
                cost = held.shards[shard].cost
                part = cost * (used / cost.images)
                part.images = used
                total += part
        return total

    def _add(self, known: Known) -> None:
        self._known[known.listed.sha256] = known
        self._in_no_index.add(known.listed.sha256)
        self._held = None

    def _write_index(self) -> None:
        """Write an index of the shards that are in none, once they are worth it."""
        if len(self._in_no_index) >= indexes.WORTHWHILE:
            indexes.write(self.folder, [self._known[sha256] for sha256 in self._in_no_index])
            self._in_no_index.clear()

    def _used(self, keys: Keys) -> Iterator[_Used]:
        """Yield what is wanted of each shard, oldest first; StateError if a row is not here."""
        places, held = self._find(keys), self._all_held()
        if (places < 0).any():
            raise StateError(f"{self.folder}: {int((places < 0).sum())} rows are not in the cache")
        shard_of = held.shard_of(places)
        order = np.argsort(shard_of, kind="stable")
        for positions in np.split(order, np.flatnonzero(np.diff(shard_of[order])) + 1):
            if len(positions):
                shard = shard_of[positions[0]]
                yield _Used(held.shards[shard], positions, places[positions] - held.starts[shard])

    def _find(self, keys: Keys) -> Ints:
        """Return each key's place among all that are held, -1 where there is none: (N,)."""
        return lookup.places(keys, self._all_held().keys)

    def _all_held(self) -> "_Held":
        if self._held is None:
            self._held = _Held(self._known.values())
        return self._held


class _Held:
    """All keys (M,), the oldest shard's first: of equal ones its row is everyone's."""

    def __init__(self, known: Iterable[Known]) -> None:
        by_age = sorted(known, key=lambda one: (one.listed.created_ns, one.listed.sha256))
        self.shards = [listed for listed, _ in by_age]
        self.keys = np.concatenate([np.empty(0, _KEY), *(keys for _, keys in by_age)])
        self.starts = np.cumsum([0, *(listed.rows for listed in self.shards)])

    def shard_of(self, places: Ints) -> Ints:
        """Return the number of the shard that holds each of the places (n,): (n,)."""
        return np.searchsorted(self.starts, places, side="right") - 1


def _ahead(pool: ThreadPoolExecutor, work: Callable[[One], Other], items: Iterable[One]) -> Iterator[Other]:
    """Yield what becomes of the items, in their order, with the next ones in the threads' hands meanwhile."""
    waiting: deque[Future[Other]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _known(shard: Shard) -> Known:
    row_shape, cost = shard.features.shape[1:], shard.cost
    listed = Listed(shard.path.stem, len(shard.keys), row_shape, cost, shard.created_ns, shard.worker)
    return Known(listed, shard.keys)


def _read_if_there(path: Path) -> Known | None:
    """Read what a shard says besides its features; None if it vanished, StateError as `read_shard`."""
    try:
        return _known(read_shard(path))
    except StateError:
        if path.exists() or path.is_symlink():
            raise
        return None


def _require_as_listed(held: Keys, features: Floats, used: _Used, keys: Keys, path: Path) -> None:
    """Raise StateError unless a shard, with its keys (n,) and features (n, ...), is what an index may have said."""
    listed, rows = used.listed, used.rows
    like = len(held) == listed.rows and features.shape[1:] == listed.row_shape
    if not like or rows.max() >= len(held) or (held[rows] != keys[used.positions]).any():
        raise StateError(f"{path}: holds other rows than an index says; delete {path.parent}/*{indexes.SUFFIX}")


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
