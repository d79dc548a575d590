"""The memo of hashes: files that look as they did when they were read need not be read again.

It is a memo and no record: the audit never asks it, and one that is damaged is as good as none.
"""

import time
from collections.abc import Collection, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core import stamps
from pipeline.core.atomic import replacing
from pipeline.core.errors import StateError

MEMO = Path(".headswap/hashes.parquet")
# To change its columns: rename MEMO, so that an older version's is not read.
_SCHEMA = pa.schema([("name", pa.string()), ("mark", pa.string()), ("sha256", pa.string())])
SETTLED_NS = 2_000_000_000
"""A file may change again within the granularity of its file system's times, 2 s on FAT, and look the same."""


def mark_of(size: int, mtime_ns: int, ctime_ns: int, inode: int, now_ns: int | None = None) -> str | None:
    """Return what would be another if the file was; None if it changed so lately that it could change unseen.

    The times must have been asked before the bytes were read, and `now_ns` before the times.
    """
    if now_ns is not None and max(mtime_ns, ctime_ns) > now_ns - SETTLED_NS:
        return None
    return f"{size}:{mtime_ns}:{ctime_ns}:{inode}"


def read(keys: Sequence[str], marks: Sequence[str | None]) -> list[str | None]:
    """Return the sha256 of every file that the memo knows by name and mark, else None.

    Args:
        keys: (N,) what the files are called.
        marks: (N,) what they look like.

    """
    table = _table()
    if not len(table):
        return [None] * len(keys)
    at = pc.index_in(pa.array(keys, pa.string()), value_set=table["name"])
    same = pc.equal(table["mark"].take(at), pa.array(marks, pa.string()))
    found: list[str | None] = pc.if_else(same, table["sha256"].take(at), None).to_pylist()
    return found


def write(keys: Sequence[str], marks: Sequence[str | None], sha256: Sequence[str | None]) -> None:
    """Write the memo anew: of the files that have a mark and a hash, as (N,) each."""
    columns = [pa.array(column, pa.string()) for column in (keys, marks, sha256)]
    table = pa.Table.from_arrays(columns, schema=_SCHEMA).drop_null()
    with replacing(MEMO) as temporary:
        pq.write_table(table, temporary, compression="zstd", use_dictionary=False)


def forget(gone: Collection[str], *, dry: bool = False) -> int:
    """Remove what has one of some sha256s; return how many rows that are."""
    table = _table()
    known = pc.is_in(table["sha256"], pa.array(list(gone), pa.string()))
    rows = int(pc.sum(known).as_py() or 0)
    if rows and not dry:
        left = table.filter(pc.invert(known))
        write(*(left[name].to_pylist() for name in _SCHEMA.names))
    return rows


def _table() -> Any:  # noqa: ANN401  # pyarrow has no types
    """Read the memo; whatever is wrong with it, it is empty then."""
    try:
        table = pq.ParquetFile(BytesIO(stamps.read_bytes(MEMO))).read().cast(_SCHEMA).combine_chunks()
        sound = pc.match_substring_regex(table["sha256"], "^[0-9a-f]{64}$")
        return table.filter(sound) if not pc.all(sound).as_py() else table
    except (StateError, OSError, pa.ArrowException, ValueError, KeyError):
        return _SCHEMA.empty_table()


class Clock:
    """Says when it is time to write down what was done."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.last = seconds, time.monotonic()

    def strikes(self) -> bool:
        """Return whether so many seconds have passed since it last did."""
        if time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True
