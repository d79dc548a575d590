"""The frozen pass: decode | batch | forward | write, all at the same time.

Threads decode some batches ahead, the calling thread pushes batches through the network, and one more thread writes
finished shards. Pillow, the runtimes and the disk all release the interpreter's lock. The queues between them are
bounded, so memory does not grow with the number of images.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from pipeline.core import stamps, systems
from pipeline.core.cost import measured
from pipeline.core.errors import StateError
from pipeline.core.interrupts import deferred
from pipeline.core.look_ahead import in_threads
from pipeline.core.sections import Augment, Embed
from pipeline.data import manifest
from pipeline.data.images.decoding import BadImageError, Framing
from pipeline.embeddings import matrix
from pipeline.embeddings.shard_writer import RowSink, ShardWriter
from pipeline.embeddings.shards import SCHEMA_VERSION, keys_of
from pipeline.networks import views
from pipeline.networks.backbones import Loaded
from pipeline.networks.runtime import Forward, threads

# The embedding code's version: raise it whenever a change here or in `images` changes a number.
CODE_VERSION = 2
# A killed run loses at most two shards, the one that fills and the one being written. Smaller shards would make more
# files, each to be hashed at every start.
SHARD_ROWS = 512
# Batches that may be decoded ahead: this bounds memory, and keeps the network busy past a slow image.
AHEAD = 4

Pixels = npt.NDArray[np.uint8]
Load = Callable[..., Pixels]
"""As `load`: takes an item and `framing`."""


@dataclass(frozen=True)
class Item:
    """One view of an image to embed; view 0 is the image as it is."""

    path: Path
    sha256: str
    view: int = 0
    name: str = ""
    """Under the remote root, if there is one."""


def recipe_of(identity: Mapping[str, Any], settings: Embed) -> dict[str, Any]:
    """Return all that decides the rows of view 0: the network's identity, and how it is used."""
    return {
        **identity,
        "scaled_jpeg": settings.scaled_jpeg,
        "dtype": settings.dtype,
        "code_version": CODE_VERSION,
        "schema_version": SCHEMA_VERSION,
    }


def require_recipe(recipe: Mapping[str, Any], loaded: Loaded, settings: Embed, backbone: str) -> None:
    """Raise StateError unless a backbone, as loaded and used now, makes rows under a recipe."""
    if stamps.sha256_json(recipe_of(loaded.identity, settings)) != stamps.sha256_json(recipe):
        raise StateError(f"{matrix.matrix_path(backbone)}: made by another recipe than this one; run `dvc repro`")


def augmented(recipe: Mapping[str, Any], settings: Embed) -> dict[str, Any]:
    """Return all that decides the rows of further views, given the recipe of view 0."""
    return {**recipe, "augment": {**settings.augment.model_dump(), "code_version": views.CODE_VERSION}}


def load(item: Item, framing: Framing, augment: Augment | None = None) -> Pixels:
    """Return the pixels of an item's view, if the file's bytes are still the manifest's: (3, S, S) uint8.

    Raises:
        StateError: if the file is gone or has changed since `prepare`.
        BadImageError: if it cannot be decoded.

    """
    content = manifest.image_bytes(item.path, item.sha256)
    return views.pixels(content, item.sha256, item.view, framing, augment or Augment())


def run(
    items: Sequence[Item],
    cache: RowSink,
    forward: Forward,
    framing: Framing,
    batch_size: int,
    dtype: str,
    load: Load = load,
    shard_rows: int | None = None,
) -> dict[str, str]:
    """Embed the items and append their rows to the cache, a shard at a time.

    On an interrupt it finishes and writes the batch in hand, then raises KeyboardInterrupt. On any error, too, it keeps
    all rows computed so far.

    Args:
        items: the images, all missing from the cache, each content and view once.
        cache: where the rows go.
        forward: the network, for batches of `batch_size` images.
        framing: how an image becomes a square.
        batch_size: images per forward pass; the last batch is padded, so that no row depends on its neighbours.
        dtype: of the stored rows.
        load: reads an item's pixels; it knows how to augment views other than 0, if there are any.
        shard_rows: rows of a shard, fewer where they are large; SHARD_ROWS unless given.

    Returns:
        sha256 -> reason, of the images that could not be decoded.

    """
    skipped: dict[str, str] = {}
    if not items:
        return skipped
    bar = tqdm(total=len(items), desc="embed", unit="image", disable=None)
    with (
        bar,
        deferred() as interrupted,
        closing(_decode_ahead(items, partial(load, framing=framing), batch_size)) as decoded,
        ShardWriter(cache, dtype, shard_rows or SHARD_ROWS) as writer,
    ):
        for batch, pixels in _batches(_usable(decoded, skipped, bar.update), batch_size):
            keys = keys_of((item.sha256 for item in batch), (item.view for item in batch))
            writer.add(keys, forward(pixels)[: len(batch)])
            bar.update(len(batch))
            if interrupted():
                break
    return skipped


def seconds(items: Sequence[Item], forward: Forward, framing: Framing, batch_size: int) -> float:
    """Return how long the items take from file to row; nothing is kept; errors as `rows`."""
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
    """Yield batches of items with their rows (n, D), decoded ahead as in `run`, without those that cannot be decoded.

    Raises:
        StateError: if a file is gone or has changed since `prepare`.

    """
    with closing(_decode_ahead(items, partial(load, framing=framing), batch_size)) as decoded:
        for batch, pixels in _batches(_usable(decoded, {}, lambda: None), batch_size):
            yield batch, forward(pixels)[: len(batch)]


def decoding_threads() -> int:
    """Return how many threads decode: some more than may compute, for they wait for the disk, too."""
    return min(32, (threads() or systems.cores()) + 4)


def _decode_ahead(
    items: Sequence[Item], load: Callable[[Item], Pixels], batch_size: int
) -> Generator[tuple[Item, Pixels | BadImageError]]:
    """Return the items in order, each with its pixels or the reason why it has none."""

    def decode(item: Item) -> tuple[Item, Pixels | BadImageError]:
        try:
            return item, load(item)
        except BadImageError as error:
            return item, error

    return in_threads(decode, items, decoding_threads(), batch_size * AHEAD)


def _usable(
    decoded: Iterable[tuple[Item, Pixels | BadImageError]], skipped: dict[str, str], progress: Callable[[], object]
) -> Iterator[tuple[Item, Pixels]]:
    """Yield the items that have pixels; note the others' reasons by sha256."""
    for item, pixels in decoded:
        if isinstance(pixels, BadImageError):
            skipped[item.sha256] = str(pixels)
            progress()
        else:
            yield item, pixels


def _batches(stream: Iterator[tuple[Item, Pixels]], size: int) -> Iterator[tuple[list[Item], Pixels]]:
    """Yield up to `size` items with their pixels (size, 3, S, S): zeros beyond the last, overwritten by the next."""
    pixels: Pixels | None = None
    while batch := list(islice(stream, size)):
        if pixels is None:
            pixels = np.zeros((size, *batch[0][1].shape), np.uint8)
        for position, (_, image) in enumerate(batch):
            pixels[position] = image
        pixels[len(batch) :] = 0
        yield [item for item, _ in batch], pixels
