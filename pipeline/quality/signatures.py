"""Signatures: each image at 64 x 64 pixels, decoded once and kept by the sha256 of its bytes.

They lie in a cache of the same make as the embeddings', so that new images alone are decoded, a killed run loses at
most a shard, and `headswap forget` takes an image's out.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.data import manifest
from pipeline.data.images import decoding
from pipeline.data.images.decoding import BadImageError
from pipeline.data.manifest import Manifest
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.shards import keys_of

CACHE = Path(".headswap/signatures")
SIDE, COLOURS = 64, 8
"""Pixels: the side of the grey picture, and of the two of colour."""
VERSION = 1
"""Raise it whenever a change here or in `images` changes a number."""
_GREY, _COLOUR = SIDE * SIDE, COLOURS * COLOURS
_SHARD = 4096

Bytes = npt.NDArray[np.uint8]


class Parts(NamedTuple):
    """What is in N signatures."""

    grey: Bytes
    """(N, 64, 64): the whole image, stretched to a square."""
    colour: Bytes
    """(N, 2, 8, 8): Cb and Cr, of ITU-R BT.601; 128 is grey."""
    side: Bytes
    """(N,) the image's shorter side in pixels, 255 for more: what is finer than its pixels is not in it."""


def parts(signatures: Bytes) -> Parts:
    """Take signatures (N, 4225) apart, without copying."""
    grey, colour, side = np.split(signatures, [_GREY, _GREY + 2 * _COLOUR], axis=1)
    return Parts(grey.reshape(-1, SIDE, SIDE), colour.reshape(-1, 2, COLOURS, COLOURS), side[:, 0])


def of(content: bytes) -> Bytes:
    """Return the signature (4225,) of an image file's bytes; BadImageError if it cannot be decoded."""
    side = min(255, *decoding.dimensions(content))
    image = decoding.decode(content, needed=2 * SIDE)
    grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    small = image.resize((COLOURS, COLOURS), Image.Resampling.BOX).convert("YCbCr")
    colour = np.asarray(small).transpose(2, 0, 1)[1:]
    return np.concatenate([np.asarray(grey).ravel(), colour.ravel(), [side]]).astype(np.uint8)


def read(table: Manifest, row: npt.NDArray[np.integer], progress: Callable[[int], object]) -> Bytes:
    """Return the signatures of some rows of the manifest (N, 4225); those not kept yet are made and kept.

    Args:
        table: the manifest.
        row: (N,) images that can be decoded.
        progress: is told how many images are done, kept ones first.

    Raises:
        StateError: if a file is gone, has changed since `prepare`, or cannot be decoded, which `embed` could.

    """
    cache = EmbeddingCache(CACHE, {"signature": VERSION, "side": SIDE, "colours": COLOURS})
    keys = keys_of(table.sha256[at] for at in row)
    missing = cache.missing(keys)
    progress(len(row) - len(missing))
    with ThreadPoolExecutor() as pool:  # Pillow releases the interpreter's lock
        for shard in np.array_split(missing, range(_SHARD, len(missing), _SHARD)):
            rows = list(_made(pool, table, row[shard], progress))
            if rows:
                cache.append(keys[shard], np.stack(rows), Cost())
    found = np.empty((len(row), _GREY + 2 * _COLOUR + 1), np.uint8)
    for places, kept in cache.blocks(keys):
        found[places] = kept
    return found


def _made(
    pool: ThreadPoolExecutor, table: Manifest, rows: npt.NDArray[np.integer], progress: Callable[[int], object]
) -> Iterator[Bytes]:
    for signature in pool.map(partial(_of_row, table), rows.tolist()):
        progress(1)
        yield signature


def _of_row(table: Manifest, row: int) -> Bytes:
    path = Path(table.path[row])
    try:
        return of(manifest.image_bytes(path, table.sha256[row]))
    except BadImageError as error:
        raise StateError(f"{path}: {error}; run `dvc repro --force`") from error
