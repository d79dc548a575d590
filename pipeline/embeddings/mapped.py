"""Rows of mapped files that are larger than memory."""

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


class MappedRows:
    """Chosen rows of mapped features, copied on request; the pages they came from then leave memory.

    `rows[numbers]`, with a slice or an array of row numbers, is an array of the stored type.
    """

    def __init__(self, parts: Sequence[Floats], rows: Ints) -> None:
        """Choose `rows` of the `parts`, numbered as if the parts were one below the other."""
        self.parts = parts
        self.rows = rows
        self.starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, ...)."""
        return len(self.rows), *self.parts[0].shape[1:]

    def chosen(self, rows: Ints) -> "MappedRows":
        """Return some of these rows, still unread."""
        return MappedRows(self.parts, self.rows[rows])

    def __getitem__(self, rows: Ints | slice) -> Floats:
        wanted = self.rows[rows]
        if len(self.parts) == 1:
            found = self.parts[0].take(wanted, axis=0)
            _release(self.parts[0])
            return found
        found = np.empty((len(wanted), *self.shape[1:]), self.parts[0].dtype)
        for part, start in zip(self.parts, self.starts[:-1], strict=True):
            inside = (wanted >= start) & (wanted < start + len(part))
            if inside.any():
                found[inside] = part[wanted[inside] - start]
                _release(part)
        return found


def _release(part: Floats) -> None:
    """Let the pages of a mapped array leave memory; the next access reads them from the file again."""
    base: Any = part
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
