"""Tables: plain text for people, CSV for DVC."""

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from pipeline.core.atomic import write_text

Table = Sequence[Sequence[object]]
"""Its columns' names, then its rows."""


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Put rows of equally many cells under each other, a line each."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def write_csv(path: Path, table: Table) -> None:
    """Write a table as CSV, whole or not at all."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    write_text(path, text.getvalue())
