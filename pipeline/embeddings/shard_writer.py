"""Collects rows into shards, and writes each shard while the next one fills."""

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from pipeline.core.cost import Clock, Cost
from pipeline.core.errors import InputError, StateError
from pipeline.embeddings.shards import Keys

# Rows of whole activations are large, and a shard is held in memory while it is written and hashed.
SHARD_BYTES = 64_000_000


class RowSink(Protocol):
    """Where rows go: a cache, or what a worker has instead."""

    def append(self, keys: Keys, features: npt.NDArray[np.floating], cost: Cost) -> None:
        """Add rows: keys (n,), features (n, ...). They are on disk, whole, when this returns."""


class TooNarrowError(InputError):
    """Some features are larger than their storage type can hold."""


class ShardWriter:
    """A context that takes rows and measures what they cost; leaving it writes the rows that are left.

    At most one shard is being written while the next one fills; a write's error is raised at the next one.

    Args:
        sink: gets a shard at a time.
        dtype: of the stored rows.
        shard_rows: rows of a shard, fewer where they exceed SHARD_BYTES.

    """

    def __init__(self, sink: RowSink, dtype: str, shard_rows: int) -> None:
        self.sink, self.dtype, self.shard_rows = sink, dtype, shard_rows
        self.pool = ThreadPoolExecutor(1)
        self.writing: Future[None] | None = None
        self.started = False
        self._restart()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.pool:
            self._flush()
            self._wait()

    def _restart(self) -> None:
        self.keys: list[Keys] = []
        self.rows: list[npt.NDArray[np.floating]] = []
        self.count, self.before = 0, 0
        self.clock, self.running = Clock(), Clock()

    def add(self, keys: Keys, rows: npt.NDArray[np.float32]) -> None:
        """Take rows (n, ...) under keys (n,).

        Raises:
            StateError: if they are not finite.
            TooNarrowError: if they are, but not in the storage type.

        """
        if not np.isfinite(rows).all():
            raise StateError("the network's output is not finite; are these its weights?")
        with np.errstate(over="ignore"):
            stored = rows.astype(self.dtype)
        if not np.isfinite(stored).all():
            raise TooNarrowError(
                "params.yaml: embed.dtype: got 'float16', too narrow for these features; expected 'float32'"
            )
        self.keys.append(keys)
        self.rows.append(stored)
        self.count += len(keys)
        if not self.started:  # the first batch of a pass waited for the network to be prepared
            self.started, self.running, self.before = True, Clock(), self.count
        if self.count >= self.shard_rows or self.count * stored[0].nbytes >= SHARD_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._wait()
        if self.count:
            cost, running = self.clock.read(), self.count - self.before
            if running:
                cost.running_seconds, cost.running_images = self.running.read().seconds, running
            keys, rows = np.concatenate(self.keys), np.concatenate(self.rows)
            self.writing = self.pool.submit(self.sink.append, keys, rows, cost)
        self._restart()

    def _wait(self) -> None:
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()
