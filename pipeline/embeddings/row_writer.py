"""Writes rows that come in any order to their positions in a file that is larger than memory.

Written one by one, a million rows of 2.5 kB take 5 us each, and each is a random write where the disk's cache cannot
hold the file. So the file is cut into windows. At first each row goes to the next free slot of its window, together
with many others; then each window is read, sorted in memory and written again, unless its rows came in order.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from io import BufferedRandom
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import StateError
from pipeline.embeddings.hdf5 import Array, Floats

_WINDOW = 64_000_000
"""Bytes of a window; two of them are sorted at a time, and each takes twice its size in memory."""
_STAGED = 16_000_000
"""Bytes of rows that wait to be written together, one piece to each window."""

Ints = npt.NDArray[np.integer[Any]]
Block = tuple[Ints, Floats]
"""Positions (n,), and the rows (n, D) that belong there."""


def write_rows(path: Path, offset: int, shape: tuple[int, int], dtype: npt.DTypeLike, blocks: Iterable[Block]) -> None:
    """Write rows into an existing file, as an array (N, D) that starts at an offset.

    Args:
        path: of the file, which has its full size already.
        offset: in bytes.
        shape: (N, D).
        dtype: of the written rows.
        blocks: the rows in any order, each position once; a yielded block must not change afterwards.

    Raises:
        StateError: if a position is missing.

    """
    with path.open("r+b") as stream:
        windows = _Windows(stream, offset, shape, np.dtype(dtype))
        for positions, features in blocks:
            windows.add(positions, features)
        windows.write_staged()
        windows.require_all()
        windows.sort()


class _Windows:
    def __init__(self, stream: BufferedRandom, offset: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.stream, self.offset, self.dtype = stream, offset, dtype
        self.total, self.width = shape
        self.stride = self.width * dtype.itemsize
        self.rows = min(max(_WINDOW // self.stride, 1), max(self.total, 1))
        self.starts = range(0, self.total, self.rows)
        self.position_at = np.full(self.total, -1)
        """(N,) the position that the row in each slot belongs to."""
        self.free = list(self.starts)
        """Each window's next free slot."""
        self.staged: list[list[Floats]] = [[] for _ in self.starts]
        self.staged_bytes = 0
        self.joined = np.empty((self.rows, self.width), dtype)

    def add(self, positions: Ints, features: Floats) -> None:
        if (np.diff(positions) < 0).any():
            order = np.argsort(positions)
            positions, features = positions[order], features[order]
        cuts = np.flatnonzero(np.diff(positions // self.rows)) + 1
        for part, rows in zip(np.split(positions, cuts), np.split(features, cuts), strict=True):
            window = part[0] // self.rows
            slot = self.free[window]
            self.position_at[slot : slot + len(part)] = part
            self.free[window] += len(part)
            self.staged[window].append(rows)
        self.staged_bytes += features.nbytes
        if self.staged_bytes >= _STAGED:
            self.write_staged()

    def write_staged(self) -> None:
        for window, parts in enumerate(self.staged):
            if parts:
                rows = self.joined[: sum(map(len, parts))]
                np.concatenate(parts, out=rows)
                self._write(rows, self.free[window] - len(rows))
                parts.clear()
        self.staged_bytes = 0

    def require_all(self) -> None:
        done = np.zeros(self.total, bool)
        done[self.position_at[self.position_at >= 0]] = True
        if not done.all():
            raise StateError(f"{int((~done).sum())} of {len(done)} rows are missing")

    def sort(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            for _ in pool.map(self._sort, (self.starts[::2], self.starts[1::2])):
                pass

    def _sort(self, starts: range) -> None:
        """Sort windows one after the other in the same memory: new memory costs more than copying."""
        read, by_position = (np.empty((self.rows, self.width), self.dtype) for _ in range(2))
        with Path(self.stream.name).open("rb") as stream:
            for start in starts:
                position = self.position_at[start : start + self.rows] - start
                if (np.diff(position) != 1).any():
                    stream.seek(self.offset + start * self.stride)
                    stream.readinto(read[: len(position)].data)
                    by_position[position] = read[: len(position)]
                    self._write(by_position[: len(position)], start)

    def _write(self, rows: Array, slot: int) -> None:
        content, offset = rows.data.cast("B"), self.offset + slot * self.stride
        while content:
            written = os.pwrite(self.stream.fileno(), content, offset)
            content, offset = content[written:], offset + written
