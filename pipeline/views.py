"""Views: deterministic augmented copies of an image, numbered from 1; view 0 is the image as it is."""

import hashlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline import images
from pipeline.images import WHOLE, Framing, Region
from pipeline.params import Augment

# Version of what a number means: raise it whenever a change here changes a pixel. It is part of the views' recipe.
CODE_VERSION = 1

Pixels = npt.NDArray[np.uint8]


def pixels(content: bytes, sha256: str, view: int, framing: Framing, settings: Augment) -> Pixels:
    """Return a view of an image: (3, S, S).

    What is done to it depends on the image's bytes, the view's number and the settings, and on nothing else: the same
    on every machine, in any order.

    Raises:
        BadImageError: if the image cannot be decoded.

    """
    if view == 0:
        return images.pixels(content, framing)
    seed = hashlib.sha256(f"{sha256} {view}".encode()).digest()
    generator = np.random.default_rng(list(seed))
    region = _crop(generator, settings.crop)
    horizontal, vertical = generator.random(2) < 0.5
    angle = generator.uniform(-settings.rotate, settings.rotate)
    changed = images.pixels(content, framing, region)
    if settings.rotate:
        changed = _rotated(changed, angle)
    axes = tuple(axis for axis, flip in ((2, horizontal), (1, vertical and settings.flips == "both")) if flip)
    return changed if settings.flips == "none" else np.flip(changed, axes)


def _crop(generator: np.random.Generator, smallest: float) -> Region:
    """Choose a square of `smallest` to 1 of the side, anywhere inside."""
    side = generator.uniform(smallest, 1)
    left, top = generator.uniform(0, 1 - side, size=2)
    return Region(left, top, left + side, top + side) if smallest < 1 else WHOLE


def _rotated(square: Pixels, angle: float) -> Pixels:
    """Turn by degrees; what turns in from outside is the mirrored border, so that no corner is empty."""
    size = square.shape[1]
    margin = size // 4  # enough up to 45 degrees: (sqrt(2) - 1) / 2 = 0.21
    padded = np.pad(square, ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
    turned = Image.fromarray(padded.transpose(1, 2, 0)).rotate(angle, Image.Resampling.BICUBIC)
    return np.asarray(turned)[margin : margin + size, margin : margin + size].transpose(2, 0, 1)
