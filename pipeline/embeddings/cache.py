"""EmbeddingCache: every row that was ever computed, in immutable shards outside DVC's outputs.

A shard's name is the sha256 of its bytes, so it is checked before HDF5 parses it, and two writers can only ever add.
A row's key is the sha256 of an image file's bytes and the number of the view (0: the image as it is); the recipe is
everything else that decides its numbers, up to the last bits, in which runtimes and batch sizes differ: there the
older row stays.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.core import stamps, systems
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.embeddings import indexes, lookup
from pipeline.embeddings.hdf5 import Floats
from pipeline.embeddings.indexes import Known, Listed
from pipeline.embeddings.shards import KEY, Keys, Recipe, Shard, add, map_shard, read_shard
from pipeline.embeddings.stored import Stored

Ints = npt.NDArray[np.intp]
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
        self.keys = np.concatenate([np.empty(0, KEY), *(keys for _, keys in by_age)])
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
