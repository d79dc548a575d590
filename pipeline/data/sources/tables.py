"""Tables of labels, CSV or Parquet, as plain cells."""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO, StringIO
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core.errors import InputError, one_line
from pipeline.data.sources.place import Place

Cells = Iterator[tuple[str | None, ...]]
"""Of one row after the other."""


def columns(place: Place) -> list[str]:
    """Return the column names of the place's table; InputError if it is not a table."""
    shown, content, is_parquet = _read(place)
    with _input_errors(shown):
        if is_parquet:
            return list(pq.read_schema(BytesIO(content)).names)
        return next(_csv_reader(shown, content), [])


def rows(place: Place, required: Sequence[str], optional: Sequence[str]) -> Cells:
    """Yield the cells of some columns for every row of the place's table; None for columns that it lacks.

    Raises:
        InputError: if it is not a table, or lacks a required column.

    """
    shown, content, is_parquet = _read(place)
    with _input_errors(shown):
        yield from (_parquet if is_parquet else _csv)(shown, content, required, optional)


def text(shown: str, content: bytes) -> str:
    """Decode UTF-8 with or without a byte-order mark; InputError if it is another encoding."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{shown}: not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _read(place: Place) -> tuple[str, bytes, bool]:
    """Return the table's name for messages, its bytes, and whether it is Parquet."""
    name = place.table()
    return place.shown_table(name), place.read(name), name.lower().endswith(".parquet")


@contextmanager
def _input_errors(shown: str) -> Iterator[None]:
    try:
        yield
    except (csv.Error, pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{shown}: not a table ({one_line(error)})") from error


def _csv_reader(shown: str, content: bytes) -> Any:  # noqa: ANN401  # its type has no public name
    return csv.reader(StringIO(text(shown, content), newline=""))


def _csv(shown: str, content: bytes, required: Sequence[str], optional: Sequence[str]) -> Cells:
    reader = _csv_reader(shown, content)
    columns: list[str] = next(reader, [])
    _require(shown, columns, required, optional)
    at = [columns.index(name) if name in columns else None for name in (*required, *optional)]
    for row in filter(None, reader):
        if len(row) != len(columns):
            raise InputError(f"{shown}:{reader.line_num}: got {len(row)} cells, expected {len(columns)}")
        yield tuple(None if index is None else row[index].strip() for index in at)


def _parquet(shown: str, content: bytes, required: Sequence[str], optional: Sequence[str]) -> Cells:
    file = pq.ParquetFile(BytesIO(content))
    present = file.schema_arrow.names
    _require(shown, present, required, optional)
    wanted = (*required, *optional)
    for batch in file.iter_batches(columns=[name for name in wanted if name in present]):
        cells = [_cells(batch.column(name)) if name in present else [None] * len(batch) for name in wanted]
        for row in zip(*cells, strict=True):
            yield tuple(None if cell is None else cell.strip() for cell in row)


def _cells(column: Any) -> list[str | None]:  # noqa: ANN401  # pyarrow has no types
    """Return the cells as text; NaN, which stands for empty cells in columns of numbers, is None."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    return column.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]


def _require(shown: str, columns: Sequence[str], required: Sequence[str], optional: Sequence[str]) -> None:
    if set(required) - set(columns) or len(set(columns)) < len(columns):
        expected = f"{sorted(required)} and if wanted {sorted(optional)}, each once"
        got = f"{list(columns)}"[:200]
        hint = "; separate them by commas" if len(columns) == 1 and re.search("[;\t]", columns[0]) else ""
        raise InputError(f"{shown}: columns: got {got}, expected {expected}{hint}")
