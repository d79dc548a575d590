"""The frozen pass: decode | batch | forward | write, decoding overlapped with the forward pass."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from pipeline import images, stamps
from pipeline.cost import Cost
from pipeline.embeddings import EmbeddingCache, keys_of
from pipeline.errors import InputError, StateError
from pipeline.images import BadImageError, Framing
from pipeline.nn.runtime import Forward

# The embedding code's version: raise it whenever a change here or in `images` changes a number.
CODE_VERSION = 1
# A killed run loses at most this many rows; fewer would make more files, each to be hashed at every start.
SHARD_ROWS = 512
# Batches that may be decoded ahead: bounds memory, and keeps the network busy past a slow image.
AHEAD = 4


@dataclass(frozen=True)
class Item:
    """One image to embed."""

    path: Path
    sha256: str


def run(
    items: Sequence[Item],
    cache: EmbeddingCache,
    forward: Callable[[npt.NDArray[np.uint8]], Forward],
    framing: Framing,
    batch_size: int,
    dtype: str,
) -> dict[str, str]:
    """Embed the items and append their rows to the cache, a shard at a time.

    Args:
        items: the images, all missing from the cache, each content once.
        cache: where the rows go.
        forward: called once, with the first batch; returns the forward pass for batches of that shape.
        framing: what becomes of an image's shape.
        batch_size: images per forward pass; the last batch is padded, for a row must not depend on its neighbours.
        dtype: of the stored rows.

    Returns:
        sha256 -> reason, of the images that could not be decoded.

    """
    skipped: dict[str, str] = {}
    shard = _Shard(cache, dtype)
    compute: Forward | None = None
    bar = tqdm(total=len(items), desc="embed", unit="image", disable=None)
    with ThreadPoolExecutor() as pool, bar:
        for batch in _batches(_decoded(pool, items, framing, batch_size * AHEAD, skipped, bar.update), batch_size):
            pixels = np.zeros((batch_size, *batch[0][1].shape), np.uint8)
            pixels[: len(batch)] = [image for _, image in batch]
            compute = compute or forward(pixels)
            shard.add([item.sha256 for item, _ in batch], compute(pixels)[: len(batch)])
            bar.update(len(batch))
    shard.flush()
    return skipped


def _decoded(
    pool: ThreadPoolExecutor,
    items: Iterable[Item],
    framing: Framing,
    ahead: int,
    skipped: dict[str, str],
    progress: Callable[[], object],
) -> Iterator[tuple[Item, npt.NDArray[np.uint8]]]:
    """Yield (item, (3, S, S) uint8) in order, with at most `ahead` images decoded or being decoded."""
    waiting: deque[tuple[Item, Future[npt.NDArray[np.uint8]]]] = deque()

    def settle() -> Iterator[tuple[Item, npt.NDArray[np.uint8]]]:
        item, future = waiting.popleft()
        try:
            yield item, future.result()
        except BadImageError as error:
            skipped[item.sha256] = str(error)
            progress()

    try:
        for item in items:
            waiting.append((item, pool.submit(load, item, framing)))
            if len(waiting) >= ahead:
                yield from settle()
        while waiting:
            yield from settle()
    finally:
        for _, future in waiting:
            future.cancel()


def load(item: Item, framing: Framing) -> npt.NDArray[np.uint8]:
    """Read an image whose bytes must be the manifest's: (3, S, S) uint8.

    Raises:
        StateError: if the file is gone or has changed since `prepare`.
        BadImageError: if it cannot be decoded.

    """
    content = stamps.read_bytes(item.path)
    if stamps.sha256_bytes(content) != item.sha256:
        raise StateError(f"{item.path}: changed since `prepare` hashed it; run `dvc repro`")
    return np.ascontiguousarray(images.square(images.decode(content), framing).transpose(2, 0, 1))


def _batches(
    stream: Iterable[tuple[Item, npt.NDArray[np.uint8]]], size: int
) -> Iterator[list[tuple[Item, npt.NDArray[np.uint8]]]]:
    batch = []
    for one in stream:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class _Shard:
    """Rows on their way to the cache, with the time they took."""

    def __init__(self, cache: EmbeddingCache, dtype: str) -> None:
        self.cache, self.dtype = cache, dtype
        self._restart()

    def _restart(self) -> None:
        self.keys: list[str] = []
        self.rows: list[npt.NDArray[np.floating]] = []
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def add(self, keys: Sequence[str], rows: npt.NDArray[np.float32]) -> None:
        if not np.isfinite(rows).all():
            raise StateError("the network's output is not finite; are these its weights?")
        with np.errstate(over="ignore"):
            stored = rows.astype(self.dtype)
        if not np.isfinite(stored).all():
            raise InputError(
                "params.yaml: embed.dtype: got 'float16', too narrow for these features; expected 'float32'"
            )
        self.keys += keys
        self.rows.append(stored)
        if len(self.keys) >= SHARD_ROWS:
            self.flush()

    def flush(self) -> None:
        if self.keys:
            cost = Cost(time.perf_counter() - self.wall, time.process_time() - self.cpu, len(self.keys))
            self.cache.append(keys_of(self.keys), np.concatenate(self.rows), cost)
        self._restart()
