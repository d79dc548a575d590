"""Rows that come in any order, put where they belong in a file that is larger than memory.

Written one by one, a million rows of 2.5 kB take 5 us each, and where they do not fit into the disk's cache each is a
random write. So the file is cut into windows. At first each row goes to the next free place in its window, with many
others; then each window is read, put in order in memory and written again, unless its rows came in order.
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
"""Bytes of a window; two of them are put in order at a time, and each takes its size twice."""
_STAGED = 16_000_000
"""Bytes of rows that wait until they are written together: to each window one piece."""

Ints = npt.NDArray[np.integer[Any]]
Block = tuple[Ints, Floats]
"""Positions (n,) and the rows (n, D) that belong there."""


def put(path: Path, offset: int, shape: tuple[int, int], dtype: npt.DTypeLike, blocks: Iterable[Block]) -> None:
    """Write rows into a file, as (N, D) from an offset on.

    Args:
        path: of the file, which is that large already.
        offset: in bytes.
        shape: (N, D).
        dtype: of the rows as they are written.
        blocks: the rows in any order, each position once; what was yielded must stay as it is.

    Raises:
        StateError: if a position is left out.

    """
    with path.open("r+b") as stream:
        windows = _Windows(stream, offset, shape, np.dtype(dtype))
        for positions, features in blocks:
            windows.add(positions, features)
        windows.write_staged()
        windows.require_all()
        windows.order()


class _Windows:
    def __init__(self, stream: BufferedRandom, offset: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.stream, self.offset, self.dtype = stream, offset, dtype
        self.number, self.width = shape
        self.stride = self.width * dtype.itemsize
        self.rows = min(max(_WINDOW // self.stride, 1), max(self.number, 1))
        self.starts = range(0, self.number, self.rows)
        self.came = np.full(self.number, -1)
        """(N,) the position that the row at each place belongs to."""
        self.free = list(self.starts)
        """Of each window, the next free place."""
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
            place = self.free[window]
            self.came[place : place + len(part)] = part
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
        done = np.zeros(self.number, bool)
        done[self.came[self.came >= 0]] = True
        if not done.all():
            raise StateError(f"{int((~done).sum())} of {len(done)} rows are missing")

    def order(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            for _ in pool.map(self._order, (self.starts[::2], self.starts[1::2])):
                pass

    def _order(self, starts: range) -> None:
        """Put windows in order, one after the other in the same memory: new memory costs more than the copying."""
        read, ordered = (np.empty((self.rows, self.width), self.dtype) for _ in range(2))
        with Path(self.stream.name).open("rb") as stream:
            for start in starts:
                came = self.came[start : start + self.rows] - start
                if (np.diff(came) != 1).any():
                    stream.seek(self.offset + start * self.stride)
                    stream.readinto(read[: len(came)].data)
                    ordered[came] = read[: len(came)]
                    self._write(ordered[: len(came)], start)

    def _write(self, rows: Array, place: int) -> None:
        content, offset = rows.data.cast("B"), self.offset + place * self.stride
        while content:
            written = os.pwrite(self.stream.fileno(), content, offset)
            content, offset = content[written:], offset + written
