"""EmbeddingCache: every row that was ever computed, in immutable shards outside DVC's outputs.

A shard's name is the sha256 of its bytes: it is checked before HDF5 parses the file, and writers can only ever add. A
row's key is the sha256 of an image file's bytes and the number of the view (0: the image as it is). The recipe is all
else that decides the row, except for the last bits, which differ between runtimes and batch sizes: of two rows with one
key and recipe, the older one counts.
"""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.core import stamps, systems
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.core.look_ahead import in_threads
from pipeline.embeddings import indexes, shards
from pipeline.embeddings.hdf5 import Floats
from pipeline.embeddings.indexes import ShardEntry, ShardFacts
from pipeline.embeddings.mapped import MappedRows
from pipeline.embeddings.shards import KEY, Ints, Keys, Recipe, Shard, map_shard, positions_of, read_shard

_AHEAD = 3
"""Shards that threads read while the rows of the one before are used."""
SEEN_WITHIN = 60.0
"""Seconds after which a machine sees what another has written to a shared disk: NFS caches listings that long."""
PAUSE = 2.0
"""Seconds between two looks for that; each goes through all keys."""
VANISHED = 0.1
"""Seconds before a folder is listed again, if it named a file that is not there."""


class NewShard(NamedTuple):
    """What a shard added that was not there before."""

    rows: int
    cost: Cost
    worker: str


class _Selection(NamedTuple):
    """The rows wanted of one shard."""

    facts: ShardFacts
    positions: Ints
    """(n,) positions in the keys asked for, ascending."""
    rows: Ints
    """(n,) rows of the shard."""


class EmbeddingCache:
    """The rows that were ever computed under one recipe, in immutable shards that many writers may add to.

    Args:
        root: the folder of all recipes; repositories and machines may share it.
        recipe: everything that decides a row besides the image's bytes and the view.

    Raises:
        StateError: if a shard's bytes do not hash to its name, or are more than plain data.

    """

    def __init__(self, root: Path, recipe: Recipe) -> None:
        self.folder = root / stamps.sha256_json(recipe)
        self.recipe = recipe
        self._entries = indexes.read(self.folder)
        self._in_no_index = set[str]()
        self._rows: _Rows | None = None
        self.refresh()

    def refresh(self) -> list[NewShard]:
        """Look at the folder again; return the shards that any writer has added since. Each is read once.

        A shard into which `headswap cache` has merged others counts as new, and those others are gone.

        Raises:
            StateError: as the class.

        """
        added, before = list[NewShard](), self._entries.keys()
        while True:
            there = {path.stem: path for path in self.folder.glob("*.h5")}
            self._entries = {sha256: entry for sha256, entry in self._entries.items() if sha256 in there}
            new = [path for sha256, path in there.items() if sha256 not in self._entries]
            with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
                entries = [entry for entry in pool.map(_read_if_there, new) if entry]
            for entry in entries:
                self._add(entry)
            added += [NewShard(facts.rows, facts.cost, facts.worker) for facts, _ in entries]
            if len(entries) == len(new):
                break
            time.sleep(VANISHED)  # another process has merged the missing ones, or a shared disk's listing is old
        if self._entries.keys() != before:
            self._rows = None
        self._in_no_index &= self._entries.keys()
        self._write_index()
        return added

    def missing(self, keys: Keys) -> Ints:
        """Return the positions in keys (N,) whose rows must be computed, ascending; of equal keys only the first."""
        absent = np.flatnonzero(self._find(keys) < 0)
        first = positions_of(keys[absent], keys[absent]) == np.arange(len(absent))
        return np.asarray(absent[first])

    def wait_for(self, keys: Keys) -> None:
        """Wait until the rows of keys (N,), written by other machines, are visible here, SEEN_WITHIN at most."""
        self.refresh()
        until = time.monotonic() + SEEN_WITHIN
        while len(self.missing(keys)) and time.monotonic() < until:
            time.sleep(PAUSE)
            self.refresh()

    def append(self, keys: Keys, features: Floats, cost: Cost, worker: str = "") -> None:
        """Add rows: keys (n,), features (n, ...). They are on disk, whole, when this returns."""
        self._add(_entry(shards.add(self.folder.parent, self.recipe, keys, features, cost, worker)))
        self._write_index()

    def blocks(self, keys: Keys) -> Iterator[tuple[Ints, Floats]]:
        """Yield (positions in keys, their rows), a shard at a time, positions ascending; threads read ahead.

        Raises:
            StateError: if a row is not in the cache.

        """

        def rows(selection: _Selection) -> tuple[Ints, Floats]:
            path = indexes.path_of(self.folder, selection.facts)
            shard = read_shard(path)
            _require_as_indexed(shard.keys, shard.features, selection, keys, path)
            return selection.positions, shard.features[selection.rows]

        yield from in_threads(rows, self._selections(keys), _AHEAD, _AHEAD + 1)

    def mapped(self, keys: Keys) -> MappedRows:
        """Return the rows of keys (N,) mapped from their shards, unread; StateError if one is missing or altered."""
        selections = list(self._selections(keys))
        systems.allow_open_files(len(selections) + 1024)  # beside the usual ones
        parts: list[Floats] = []
        row_of, start = np.empty(len(keys), np.intp), 0
        for selection in selections:
            path = indexes.path_of(self.folder, selection.facts)
            shard_keys, features = map_shard(path)
            _require_as_indexed(shard_keys, features, selection, keys, path)
            row_of[selection.positions] = start + selection.rows
            parts.append(features)
            start += len(features)
        return MappedRows(parts, row_of)

    def row_shape(self) -> tuple[int, ...]:
        """Return the shape of one row; StateError if the cache is empty."""
        if not self._entries:
            raise StateError("no image could be embedded; see the skipped ones")
        return next(iter(self._entries.values())).facts.row_shape

    def cost(self, keys: Keys) -> Cost:
        """Return the cost of the passes that made the rows of keys (N,).

        A shard's cost counts in proportion to the rows used, its peak memory in full; images with the same bytes share
        one row and its cost.
        """
        total, rows = Cost(), self._all_rows()
        used_rows = np.unique(self._find(keys))
        for shard, used in enumerate(np.bincount(rows.shard_of(used_rows[used_rows >= 0])).tolist()):
            if used:
                cost = rows.shards[shard].cost
                part = cost * (used / cost.images)
                part.images = used
                total += part
        return total

    def _add(self, entry: ShardEntry) -> None:
        self._entries[entry.facts.sha256] = entry
        self._in_no_index.add(entry.facts.sha256)
        self._rows = None

    def _write_index(self) -> None:
        """Write an index of the shards that are in none, if they are enough."""
        if len(self._in_no_index) >= indexes.WORTHWHILE:
            indexes.write(self.folder, [self._entries[sha256] for sha256 in self._in_no_index])
            self._in_no_index.clear()

    def _selections(self, keys: Keys) -> Iterator[_Selection]:
        """Yield the rows wanted of each shard, oldest shard first; StateError if a row is not in the cache."""
        found, rows = self._find(keys), self._all_rows()
        if (found < 0).any():
            raise StateError(f"{self.folder}: {int((found < 0).sum())} rows are not in the cache")
        shard_of = rows.shard_of(found)
        order = np.argsort(shard_of, kind="stable")
        for positions in np.split(order, np.flatnonzero(np.diff(shard_of[order])) + 1):
            if len(positions):
                shard = shard_of[positions[0]]
                yield _Selection(rows.shards[shard], positions, found[positions] - rows.starts[shard])

    def _find(self, keys: Keys) -> Ints:
        """Return the number of each key's row among all rows, or -1: (N,)."""
        return positions_of(keys, self._all_rows().keys)

    def _all_rows(self) -> "_Rows":
        if self._rows is None:
            self._rows = _Rows(self._entries.values())
        return self._rows


class _Rows:
    """All rows (M,) by their keys, numbered from the oldest shard on: of equal keys the first one counts."""

    def __init__(self, entries: Iterable[ShardEntry]) -> None:
        by_age = sorted(entries, key=lambda entry: (entry.facts.created_ns, entry.facts.sha256))
        self.shards = [facts for facts, _ in by_age]
        self.keys = np.concatenate([np.empty(0, KEY), *(keys for _, keys in by_age)])
        self.starts = np.cumsum([0, *(facts.rows for facts in self.shards)])

    def shard_of(self, rows: Ints) -> Ints:
        """Return the number of the shard that holds each of some rows (n,): (n,)."""
        return np.searchsorted(self.starts, rows, side="right") - 1


def _entry(shard: Shard) -> ShardEntry:
    row_shape, cost = shard.features.shape[1:], shard.cost
    facts = ShardFacts(shard.path.stem, len(shard.keys), row_shape, cost, shard.created_ns, shard.worker)
    return ShardEntry(facts, shard.keys)


def _read_if_there(path: Path) -> ShardEntry | None:
    """Read a shard except for its features; None if it vanished, StateError as `read_shard`."""
    try:
        return _entry(read_shard(path))
    except StateError:
        if path.exists() or path.is_symlink():
            raise
        return None


def _require_as_indexed(shard_keys: Keys, features: Floats, selection: _Selection, keys: Keys, path: Path) -> None:
    """Raise StateError unless a shard, with its keys (n,) and features (n, ...), is what its index entry says."""
    facts, rows = selection.facts, selection.rows
    alike = len(shard_keys) == facts.rows and features.shape[1:] == facts.row_shape
    if not alike or rows.max() >= len(shard_keys) or (shard_keys[rows] != keys[selection.positions]).any():
        raise StateError(f"{path}: holds other rows than an index says; delete {path.parent}/*{indexes.SUFFIX}")
