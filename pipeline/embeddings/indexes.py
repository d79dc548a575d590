"""Indexes: all that shards say besides their features, so that opening a large cache reads 34 bytes a row.

An index lies beside the shards it describes, and like them is immutable and named by the sha256 of its bytes. It only
repeats what the shards say: deleting it costs time and nothing else, and entries of shards that are gone are ignored.
Whoever uses a row reads its shard and compares, so a wrong index leads to an error, never to a wrong row.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import TypeAdapter, ValidationError

from pipeline.core import stamps
from pipeline.core.atomic import creating
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.embeddings import hdf5
from pipeline.embeddings.shards import KEY, Keys

# To change an index's layout: give its files another suffix, and let `drop` remove those of both.
SUFFIX = ".index"

WORTHWHILE = 64
"""Shards in no index from which on one is written. Reading fewer takes a tenth of a second at the usual 1.3 MB each,
and a few seconds at the 64 MB of the largest; so small projects have no such file."""


@dataclass(frozen=True)
class ShardFacts:
    """What a shard says of itself besides its rows."""

    sha256: str
    """Hexadecimal, of its bytes: the file's name."""
    rows: int
    row_shape: tuple[int, ...]
    cost: Cost
    """Its `images` equals `rows`."""
    created_ns: int
    worker: str


class ShardEntry(NamedTuple):
    """A shard without its features."""

    facts: ShardFacts
    keys: Keys
    """(rows,)."""


_HUGE = 2**63
"""No time and no memory in an index reaches it."""
_LARGEST = 2**31
"""Limit of the numbers in a shard's features; we write a sixtieth of it at most."""
_FACTS = TypeAdapter(list[ShardFacts])


def path_of(folder: Path, facts: ShardFacts) -> Path:
    """Return a shard's path."""
    return folder / f"{facts.sha256}.h5"


def read(folder: Path) -> dict[str, ShardEntry]:
    """Return the entries of a recipe's indexes whose shards are there, by the shards' sha256.

    An index that is damaged, or only repeats others, is removed. One that names a shard which is gone is replaced:
    removed images must leave no trace.
    """
    parsed = {path: entries_of(path) for path in sorted(folder.glob(f"*{SUFFIX}"))}
    there, stale = shards_in(folder), list[Path]()  # listed after the indexes, so that no newer shard counts as gone
    found, again = dict[str, ShardEntry](), dict[str, ShardEntry]()
    for path, entries in parsed.items():
        new = {sha256: entries[sha256] for sha256 in entries.keys() & there - found.keys()}
        if not new or not entries.keys() <= there:
            stale.append(path)
            again |= new
        found |= new
    written = write(folder, list(again.values())) if again else None
    if written or not again:  # on a full disk a stale one is better than none
        for path in stale:
            if path != written:
                _discard(path)
    return found


def entries_of(path: Path) -> dict[str, ShardEntry]:
    """Return an index's entries by the shards' sha256; none if it is damaged or gone."""
    try:
        return {entry.facts.sha256: entry for entry in _parse(path)}
    except StateError:
        return {}


def write(folder: Path, entries: Sequence[ShardEntry]) -> Path | None:
    """Write an index of some shards; return None if that fails, as on a full disk, which costs only time.

    A shard that was removed meanwhile, perhaps with a forgotten image, must not live on in an index: then the index is
    removed, too.
    """
    entries = sorted(entries, key=lambda entry: entry.facts.sha256)  # two writers of one index write the same bytes
    buffer = BytesIO()
    with hdf5.create(buffer) as file:
        facts = _FACTS.dump_json([entry.facts for entry in entries])
        hdf5.store(file, "shards", np.frombuffer(facts, np.uint8))
        keys = np.concatenate([entry.keys for entry in entries])
        hdf5.store(file, "keys", keys.view(np.uint8).reshape(-1, KEY.itemsize))
    content = buffer.getvalue()
    path = folder / f"{stamps.sha256_bytes(content)}{SUFFIX}"
    with suppress(OSError):
        with creating(path) as temporary:
            temporary.write_bytes(content)
        if all(path_of(folder, entry.facts).exists() for entry in entries):
            return path
        _discard(path)
    return None


def drop(folder: Path) -> None:
    """Remove every index of a recipe's folder."""
    for path in folder.glob(f"*{SUFFIX}"):
        path.unlink(missing_ok=True)


def shards_in(folder: Path) -> set[str]:
    """Return the names of the shards in a folder, which are their sha256."""
    return {path.stem for path in folder.glob("*.h5")}


def _parse(path: Path) -> list[ShardEntry]:
    """Read an index; StateError if its bytes do not hash to its name, or are no index."""
    content = stamps.read_bytes(path)
    if stamps.sha256_bytes(content) != path.stem:
        raise StateError(f"{path}: altered since it was written")
    try:
        with hdf5.parse(content, path) as file:
            text, keys = (hdf5.values(file, name, path, content) for name in ("shards", "keys"))
        shards = _FACTS.validate_json(text.tobytes())
    except (ValidationError, OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise StateError(f"{path}: not an index") from error  # HDF5 may raise any of them
    sizes = [facts.rows for facts in shards]
    possible = bool(shards) and all(_is_possible(facts) for facts in shards)
    possible &= len({facts.sha256 for facts in shards}) == len(shards)
    if keys.dtype != np.uint8 or keys.shape[1:] != (KEY.itemsize,) or not possible or sum(sizes) != len(keys):
        raise StateError(f"{path}: shards and keys do not belong together")
    parts = np.split(keys.view(KEY).reshape(-1), np.cumsum(sizes)[:-1])
    return [ShardEntry(facts, part) for facts, part in zip(shards, parts, strict=True)]


def _is_possible(facts: ShardFacts) -> bool:
    """Return whether the facts can be those of a shard."""
    cost = facts.cost
    costs = (cost.seconds, cost.cpu_seconds, cost.peak_memory, cost.running_seconds, cost.running_images)
    measured = all(0 <= one < _HUGE for one in (*costs, cost.joules or 0.0, facts.created_ns))
    sizes = (facts.rows, *facts.row_shape)
    sized = bool(facts.row_shape) and min(sizes) > 0 and prod(sizes) < _LARGEST
    return measured and sized and cost.images == facts.rows


def _discard(path: Path) -> None:
    """Remove an index, if this user may."""
    with suppress(OSError):
        path.unlink()
