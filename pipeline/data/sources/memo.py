"""The memo of hashes: a file with the fingerprint that it had when it was read need not be read again.

It is not evidence: the audit never uses it, and a damaged memo counts as empty.
"""

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
"""The coarsest granularity of a file system's times, that of FAT: a file may change again within it unnoticed."""


def fingerprint_of(size: int, mtime_ns: int, ctime_ns: int, inode: int, now_ns: int | None = None) -> str | None:
    """Return a file's fingerprint, which changes with its content; None if it is too new to rely on that.

    Read the clock (`now_ns`) before the file's times, and its times before its bytes.
    """
    if now_ns is not None and max(mtime_ns, ctime_ns) > now_ns - SETTLED_NS:
        return None
    return f"{size}:{mtime_ns}:{ctime_ns}:{inode}"


def read(keys: Sequence[str], fingerprints: Sequence[str | None]) -> list[str | None]:
    """Return the sha256 of every file that the memo knows by name and fingerprint, else None.

    Args:
        keys: (N,) the files' names.
        fingerprints: (N,) of the files as they are now.

    """
    table = _table()
    if not len(table):
        return [None] * len(keys)
    at = pc.index_in(pa.array(keys, pa.string()), value_set=table["name"])
    same = pc.equal(table["mark"].take(at), pa.array(fingerprints, pa.string()))
    found: list[str | None] = pc.if_else(same, table["sha256"].take(at), None).to_pylist()
    return found


def write(keys: Sequence[str], fingerprints: Sequence[str | None], sha256: Sequence[str | None]) -> None:
    """Replace the memo by (N,) files, without those that lack a fingerprint or a hash."""
    columns = [pa.array(column, pa.string()) for column in (keys, fingerprints, sha256)]
    table = pa.Table.from_arrays(columns, schema=_SCHEMA).drop_null()
    with replacing(MEMO) as temporary:
        pq.write_table(table, temporary, compression="zstd", use_dictionary=False)


def forget(gone: Collection[str], *, dry: bool = False) -> int:
    """Remove the files with one of some sha256s; return how many there are."""
    table = _table()
    known = pc.is_in(table["sha256"], pa.array(list(gone), pa.string()))
    rows = int(pc.sum(known).as_py() or 0)
    if rows and not dry:
        left = table.filter(pc.invert(known))
        write(*(left[name].to_pylist() for name in _SCHEMA.names))
    return rows


def _table() -> Any:  # noqa: ANN401  # pyarrow has no types
    """Read the memo; a damaged one counts as empty."""
    try:
        table = pq.ParquetFile(BytesIO(stamps.read_bytes(MEMO))).read().cast(_SCHEMA).combine_chunks()
        sound = pc.match_substring_regex(table["sha256"], "^[0-9a-f]{64}$")
        return table.filter(sound) if not pc.all(sound).as_py() else table
    except (StateError, OSError, pa.ArrowException, ValueError, KeyError):
        return _SCHEMA.empty_table()
