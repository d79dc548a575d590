"""The frozen pass: decode | batch | forward | write, each waiting for none of the others.

Threads decode some batches ahead, the calling thread pushes batches through the network, and one more thread writes
finished shards. Pillow, the runtimes and the disk all release the interpreter's lock. What waits between them is
bounded, so memory does not grow with the number of images.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from pipeline.core import stamps
from pipeline.core.cost import Clock, Cost, measured
from pipeline.core.errors import InputError, StateError
from pipeline.core.interrupts import deferred
from pipeline.core.sections import Augment, Embed
from pipeline.data import manifest
from pipeline.data.images.decoding import BadImageError, Framing
from pipeline.embeddings import matrix
from pipeline.embeddings.shards import SCHEMA_VERSION, Keys, keys_of
from pipeline.networks import views
from pipeline.networks.backbones import Loaded
from pipeline.networks.runtime import Forward, threads

# The embedding code's version: raise it whenever a change here or in `images` changes a number.
CODE_VERSION = 2
# A killed run loses at most the shard in hand and the one being written; smaller ones would make more files, each to
# be hashed at every start.
SHARD_ROWS = 512
# Rows of whole activations are large; a shard is held in memory while it is written and hashed.
SHARD_BYTES = 64_000_000
# Batches that may be decoded ahead: bounds memory, and keeps the network busy past a slow image.
AHEAD = 4

Pixels = npt.NDArray[np.uint8]
Load = Callable[..., Pixels]
"""As `load`: an item, with `framing`."""


class Shards(Protocol):
    """Where rows go: a cache, or what stands for it in a worker."""

    def append(self, keys: Keys, features: npt.NDArray[np.floating], cost: Cost) -> None:
        """Add rows: keys (n,), features (n, ...). They are on disk, whole, when this returns."""


class TooNarrowError(InputError):
    """Some features are larger than their storage type can hold."""


@dataclass(frozen=True)
class Item:
    """One image to embed, in one view; view 0 is the image as it is."""

    path: Path
    sha256: str
    view: int = 0
    name: str = ""
    """Under the remote root, where there is one."""


def recipe_of(identity: Mapping[str, Any], settings: Embed) -> dict[str, Any]:
    """Return all that decides the rows of images as they are: the network's identity, and how it is used."""
    return {
        **identity,
        "scaled_jpeg": settings.scaled_jpeg,
        "dtype": settings.dtype,
        "code_version": CODE_VERSION,
        "schema_version": SCHEMA_VERSION,
    }


def require_recipe(recipe: Mapping[str, Any], loaded: Loaded, settings: Embed, backbone: str) -> None:
    """Raise StateError unless a backbone, as it is loaded and used now, makes rows of a recipe."""
    if stamps.sha256_json(recipe_of(loaded.identity, settings)) != stamps.sha256_json(recipe):
        raise StateError(f"{matrix.matrix_path(backbone)}: made by another recipe than this one; run `dvc repro`")


def augmented(recipe: Mapping[str, Any], settings: Embed) -> dict[str, Any]:
    """Return all that decides the rows of further views."""
    return {**recipe, "augment": {**settings.augment.model_dump(), "code_version": views.CODE_VERSION}}


def load(item: Item, framing: Framing, augment: Augment | None = None) -> Pixels:
    """Read an image whose bytes must be the manifest's, in the item's view: (3, S, S) uint8.

    Raises:
        StateError: if the file is gone or has changed since `prepare`.
        BadImageError: if it cannot be decoded.

    """
    content = manifest.image_bytes(item.path, item.sha256)
    return views.pixels(content, item.sha256, item.view, framing, augment or Augment())


def run(
    items: Sequence[Item],
    cache: Shards,
    forward: Forward,
    framing: Framing,
    batch_size: int,
    dtype: str,
    load: Load = load,
    shard_rows: int | None = None,
) -> dict[str, str]:
    """Embed the items and append their rows to the cache, a shard at a time.

    On an interrupt the batch in hand is finished and written, then KeyboardInterrupt is raised; on any error, too,
    all rows computed so far are kept.

    Args:
        items: the images, all missing from the cache, each content and view once.
        cache: where the rows go.
        forward: the network, for batches of `batch_size` images.
        framing: what becomes of an image's shape.
        batch_size: images per forward pass; the last batch is padded, for a row must not depend on its neighbours.
        dtype: of the stored rows.
        load: how an item's file becomes pixels; told what the views other than 0 are, if there are any.
        shard_rows: rows of a shard, fewer where they are large; left out, SHARD_ROWS.

    Returns:
        sha256 -> reason, of the images that could not be decoded.

    """
    skipped: dict[str, str] = {}
    if not items:
        return skipped
    bar = tqdm(total=len(items), desc="embed", unit="image", disable=None)
    decode = partial(load, framing=framing)
    with (
        bar,
        deferred() as interrupted,
        _decoders() as pool,
        _Writer(cache, dtype, shard_rows or SHARD_ROWS) as writer,
    ):
        decoded = _usable(_decoded(pool, items, decode, batch_size * AHEAD), skipped, bar.update)
        for batch, pixels in _filled(decoded, batch_size):
            writer.add(batch, forward(pixels)[: len(batch)])
            bar.update(len(batch))
            if interrupted():
                break
    return skipped


def seconds(items: Sequence[Item], forward: Forward, framing: Framing, batch_size: int) -> float:
    """Return how long the items take from their files through a network; nothing is kept; errors as `rows`."""
    with measured() as cost:
        for _ in rows(items, forward, framing, batch_size):
            pass
    return cost.seconds


def rows(
    items: Sequence[Item],
    forward: Forward,
    framing: Framing,
    batch_size: int,
    load: Load = load,
) -> Iterator[tuple[list[Item], npt.NDArray[np.float32]]]:
    """Yield batches of items with their rows (n, D), decoded ahead as in `run`; what cannot be decoded is left out.

    Raises:
        StateError: if a file is gone or has changed since `prepare`.

    """
    with _decoders() as pool:
        decoded = _decoded(pool, items, partial(load, framing=framing), batch_size * AHEAD)
        for batch, pixels in _filled(_usable(decoded, {}, lambda: None), batch_size):
            yield batch, forward(pixels)[: len(batch)]


def _decoders() -> ThreadPoolExecutor:
    """Return threads that decode: some more than may compute, for they wait for the disk, too."""
    return ThreadPoolExecutor(min(32, threads() + 4) if threads() else None)


def _decoded(
    pool: ThreadPoolExecutor, items: Iterable[Item], decode: Callable[[Item], Pixels], ahead: int
) -> Iterator[tuple[Item, Future[Pixels]]]:
    """Yield the items in order with their pixels, while at most `ahead` of them are decoded or being decoded."""
    waiting: deque[tuple[Item, Future[Pixels]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(decode, item)))
            if len(waiting) >= ahead:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for _, future in waiting:
            future.cancel()


def _usable(
    decoded: Iterable[tuple[Item, Future[Pixels]]], skipped: dict[str, str], progress: Callable[[], object]
) -> Iterator[tuple[Item, Pixels]]:
    """Wait for each image's pixels; note the reason where there are none."""
    for item, future in decoded:
        try:
            yield item, future.result()
        except BadImageError as error:
            skipped[item.sha256] = str(error)
            progress()


def _batches(stream: Iterable[tuple[Item, Pixels]], size: int) -> Iterator[list[tuple[Item, Pixels]]]:
    batch = []
    for one in stream:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _filled(stream: Iterable[tuple[Item, Pixels]], size: int) -> Iterator[tuple[list[Item], Pixels]]:
    """Yield batches of items with their pixels (size, 3, S, S): zeros beyond the last item, overwritten by the next."""
    pixels: Pixels | None = None
    for batch in _batches(stream, size):
        if pixels is None:
            pixels = np.zeros((size, *batch[0][1].shape), np.uint8)
        for place, (_, image) in enumerate(batch):
            pixels[place] = image
        pixels[len(batch) :] = 0
        yield [item for item, _ in batch], pixels


class _Writer:
    """Rows on their way to the cache, with the time they took; leaving the block writes what is left.

    One shard at most is being written while the next is filled; what goes wrong there is raised at the next one.
    """

    def __init__(self, cache: Shards, dtype: str, shard_rows: int) -> None:
        self.cache, self.dtype, self.shard_rows = cache, dtype, shard_rows
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
        self.items: list[Item] = []
        self.rows: list[npt.NDArray[np.floating]] = []
        self.clock, self.running, self.before = Clock(), Clock(), 0

    def add(self, items: Sequence[Item], rows: npt.NDArray[np.float32]) -> None:
        if not np.isfinite(rows).all():
            raise StateError("the network's output is not finite; are these its weights?")
        with np.errstate(over="ignore"):
            stored = rows.astype(self.dtype)
        if not np.isfinite(stored).all():
            raise TooNarrowError(
                "params.yaml: embed.dtype: got 'float16', too narrow for these features; expected 'float32'"
            )
        self.items += items
        self.rows.append(stored)
        if not self.started:  # the first batch of a pass waited for the network to be prepared
            self.started, self.running, self.before = True, Clock(), len(self.items)
        if len(self.items) >= self.shard_rows or len(self.items) * stored[0].nbytes >= SHARD_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._wait()
        if self.items:
            keys = keys_of((item.sha256 for item in self.items), (item.view for item in self.items))
            cost, running = self.clock.read(), len(self.items) - self.before
            if running:
                cost.running_seconds, cost.running_images = self.running.read().seconds, running
            self.writing = self.pool.submit(self.cache.append, keys, np.concatenate(self.rows), cost)
        self._restart()

    def _wait(self) -> None:
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()
