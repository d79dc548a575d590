"""Signatures: each image at 64 x 64 pixels, decoded once and cached by the sha256 of its bytes.

Their cache is an EmbeddingCache: only new images are decoded, a killed run loses at most a shard, and `headswap forget`
removes an image's signature.
"""

from collections.abc import Callable
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
"""Pixels: the sides of the grey picture, and of the two colour pictures."""
VERSION = 1
"""Raise it whenever a change here or in `images` changes a number."""
_GREY, _COLOUR = SIDE * SIDE, COLOURS * COLOURS
_SHARD = 4096

Bytes = npt.NDArray[np.uint8]


class Parts(NamedTuple):
    """The parts of N signatures."""

    grey: Bytes
    """(N, 64, 64): the whole image, stretched to a square."""
    colour: Bytes
    """(N, 2, 8, 8): Cb and Cr, of ITU-R BT.601; 128 is grey."""
    side: Bytes
    """(N,) the image's shorter side in pixels, at most 255: a small image lacks the finest detail."""


def parts(signatures: Bytes) -> Parts:
    """Return the parts of signatures (N, 4225), without copying."""
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
    """Return the signatures of some rows of the manifest (N, 4225); missing ones are computed and cached.

    Args:
        table: the manifest.
        row: (N,) rows of decodable images.
        progress: called with the number of newly finished images, cached ones first.

    Raises:
        StateError: if a file is gone, has changed since `prepare`, or cannot be decoded although `embed` could.

    """
    cache = EmbeddingCache(CACHE, {"signature": VERSION, "side": SIDE, "colours": COLOURS})
    keys = keys_of(table.sha256[at] for at in row)
    missing = cache.missing(keys)
    progress(len(row) - len(missing))
    with ThreadPoolExecutor() as pool:  # Pillow releases the interpreter's lock
        for shard in np.array_split(missing, range(_SHARD, len(missing), _SHARD)):
            signatures = []
            for signature in pool.map(partial(_of_row, table), row[shard].tolist()):
                signatures.append(signature)
                progress(1)
            if signatures:
                cache.append(keys[shard], np.stack(signatures), Cost())
    found = np.empty((len(row), _GREY + 2 * _COLOUR + 1), np.uint8)
    for positions, rows in cache.blocks(keys):
        found[positions] = rows
    return found


def _of_row(table: Manifest, row: int) -> Bytes:
    path = Path(table.path[row])
    try:
        return of(manifest.image_bytes(path, table.sha256[row]))
    except BadImageError as error:
        raise StateError(f"{path}: {error}; run `dvc repro --force`") from error
