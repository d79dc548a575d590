"""Images that are excluded for good, by the sha256 of their bytes: no name of a file or a person is kept."""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path

from pipeline.core import stamps
from pipeline.core.errors import InputError, first_five
from pipeline.core.tables import write_csv
from pipeline.data.manifest import Record

EXCLUDED = Path("data/excluded.csv")
COLUMNS = ("sha256", "reason")
FORGOTTEN = "forgotten"
"""The reason that `headswap forget` gives; the audit then checks that nothing contains the image any more."""


def read() -> dict[str, str]:
    """Return sha256 -> reason, in the order of the file, which may be missing; `forgotten` outweighs other reasons.

    Raises:
        InputError: if the file is not such a table, with its malformed lines.

    """
    if not EXCLUDED.exists():
        return {}
    try:
        rows = list(csv.reader(StringIO(stamps.read_bytes(EXCLUDED).decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{EXCLUDED}: not a table in UTF-8 ({error})") from error
    if tuple(rows[0] if rows else ()) != COLUMNS:
        raise InputError(f"{EXCLUDED}:1: columns: got {rows[0] if rows else []}, expected {list(COLUMNS)}")
    if problems := list(_malformed(rows[1:])):
        raise InputError(*first_five(problems, "lines"))
    found: dict[str, str] = {}
    for sha256, reason in filter(None, rows[1:]):
        if found.get(sha256) != FORGOTTEN:
            found[sha256] = reason
    return found


def included(
    records: Sequence[Record], contents: Sequence[str], excluded: Mapping[str, str]
) -> tuple[list[Record], list[str]]:
    """Return the records, and their images' sha256, that the list does not exclude; InputError if it excludes all."""
    kept = [row for row, sha256 in enumerate(contents) if sha256 not in excluded]
    if not kept:
        raise InputError(f"{EXCLUDED}: leaves out all {len(records)} images, expected some to be left")
    return [records[row] for row in kept], [contents[row] for row in kept]


def forgotten() -> list[str]:
    """Return the sha256 of the forgotten images, which nothing may contain; InputError as `read`."""
    return [sha256 for sha256, reason in read().items() if reason == FORGOTTEN]


def _malformed(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for line, row in enumerate(rows, start=2):
        if row and not (len(row) == len(COLUMNS) and re.fullmatch("[0-9a-f]{64}", row[0]) and row[1].strip()):
            yield f"{EXCLUDED}:{line}: got {','.join(row)!r}, expected a sha256 in lower case and a reason"


def add(sha256: Iterable[str], reason: str) -> None:
    """Add images; the file is written as a whole, or not at all if it would not change."""
    add_all(dict.fromkeys(sha256, reason))


def add_all(reasons: Mapping[str, str]) -> None:
    """As `add`, with a reason for each sha256."""
    known = read()
    wanted = {**known, **reasons}
    if wanted != known:
        write_csv(EXCLUDED, [COLUMNS, *wanted.items()])
