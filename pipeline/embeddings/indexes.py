"""Indexes: what shards already read say besides their features, so that opening a large cache reads 34 bytes a row.

An index lies beside the shards it names, and like them is immutable and named by the sha256 of its bytes. It only
repeats what they say: deleting it costs time and nothing else, and of what it says of a shard that is gone nothing is
believed. Who uses a row reads its shard and compares, so a wrong index makes an error, never a wrong row.
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
from pipeline.embeddings.lookup import Keys

# To change an index's layout: give its files another suffix, and let `drop` remove those of both.
SUFFIX = ".index"

WORTHWHILE = 64
"""Shards in no index, from which on one is written. Reading fewer takes a tenth of a second at the usual 1.3 MB each,
and a few seconds at the 64 MB of the largest; so small projects have no such file."""


@dataclass(frozen=True)
class Listed:
    """What a shard says of itself besides its rows."""

    sha256: str
    """Of its bytes, in hexadecimal: its name."""
    rows: int
    row_shape: tuple[int, ...]
    cost: Cost
    """Its `images` is `rows`."""
    created_ns: int
    worker: str


class Known(NamedTuple):
    """A shard without its features."""

    listed: Listed
    keys: Keys
    """(rows,) of 34 bytes."""


_WIDTH = 34
"""Bytes of a key."""
_HUGE = 2**63
"""No time and no memory in an index reaches it."""
_LARGEST = 2**31
"""Numbers of a shard's features; those of the largest that are written are a sixtieth of it."""
_LISTED = TypeAdapter(list[Listed])


def path_of(folder: Path, listed: Listed) -> Path:
    """Return where a shard lies."""
    return folder / f"{listed.sha256}.h5"


def read(folder: Path) -> dict[str, Known]:
    """Return what the indexes of a recipe's folder say of shards that are there, by the shards' sha256.

    An index that is damaged, or repeats what others say, is removed. One that names a shard which is gone is replaced:
    for what was removed should leave no trace.
    """
    parsed = {path: named(path) for path in sorted(folder.glob(f"*{SUFFIX}"))}
    there, stale = shards_in(folder), list[Path]()  # listed last: what is new in an index is not taken for gone
    found, again = dict[str, Known](), dict[str, Known]()
    for path, says in parsed.items():
        new = {sha256: says[sha256] for sha256 in says.keys() & there - found.keys()}
        if not new or not says.keys() <= there:
            stale.append(path)
            again |= new
        found |= new
    written = write(folder, list(again.values())) if again else None
    if written or not again:  # on a full disk a stale one is better than none
        for path in stale:
            if path != written:
                _discard(path)
    return found


def named(path: Path) -> dict[str, Known]:
    """Return what an index says, by the shards' sha256; nothing if it is damaged, or not there any more."""
    try:
        return {known.listed.sha256: known for known in _parse(path)}
    except StateError:
        return {}


def write(folder: Path, known: Sequence[Known]) -> Path | None:
    """Write an index of some shards; None where that cannot be, as on a full disk, which costs only time.

    A shard that was removed meanwhile, perhaps for an image is forgotten, must not live on in an index: that goes, too.
    """
    known = sorted(known, key=lambda one: one.listed.sha256)  # so that two writers of one index write the same bytes
    buffer = BytesIO()
    with hdf5.create(buffer) as file:
        listed = _LISTED.dump_json([one.listed for one in known])
        hdf5.store(file, "shards", np.frombuffer(listed, np.uint8))
        hdf5.store(file, "keys", np.concatenate([one.keys for one in known]).view(np.uint8).reshape(-1, _WIDTH))
    content = buffer.getvalue()
    path = folder / f"{stamps.sha256_bytes(content)}{SUFFIX}"
    with suppress(OSError):
        with creating(path) as temporary:
            temporary.write_bytes(content)
        if all(path_of(folder, one.listed).exists() for one in known):
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


def _parse(path: Path) -> list[Known]:
    """Read an index; StateError if its bytes are not those its name promises, or no index."""
    content = stamps.read_bytes(path)
    if stamps.sha256_bytes(content) != path.stem:
        raise StateError(f"{path}: altered since it was written")
    try:
        with hdf5.parse(content, path) as file:
            text, keys = (hdf5.values(file, name, path, content) for name in ("shards", "keys"))
        listed = _LISTED.validate_json(text.tobytes())
    except (ValidationError, OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise StateError(f"{path}: not an index") from error  # HDF5 raises any of them for what is none
    sizes = [one.rows for one in listed]
    have_rows = bool(listed) and all(_is_possible(one) for one in listed)
    have_rows &= len({one.sha256 for one in listed}) == len(listed)
    if keys.dtype != np.uint8 or keys.shape[1:] != (_WIDTH,) or not have_rows or sum(sizes) != len(keys):
        raise StateError(f"{path}: shards and keys do not belong together")
    parts = np.split(keys.view(f"S{_WIDTH}").reshape(-1), np.cumsum(sizes)[:-1])
    return [Known(one, part) for one, part in zip(listed, parts, strict=True)]


def _is_possible(listed: Listed) -> bool:
    """Return whether a shard can be what an index says of it."""
    cost = listed.cost
    costs = (cost.seconds, cost.cpu_seconds, cost.peak_memory, cost.running_seconds, cost.running_images)
    measured = all(0 <= one < _HUGE for one in (*costs, cost.joules or 0.0, listed.created_ns))
    sizes = (listed.rows, *listed.row_shape)
    sized = bool(listed.row_shape) and min(sizes) > 0 and prod(sizes) < _LARGEST
    return measured and sized and cost.images == listed.rows


def _discard(path: Path) -> None:
    """Remove an index, if this user may."""
    with suppress(OSError):
        path.unlink()
