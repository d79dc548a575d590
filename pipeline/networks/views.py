"""Views: deterministic augmented copies of an image, numbered from 1; view 0 is the image as it is.

The frozen pass stores them and fine-tuning trains on them. torchvision's v2 transforms change the pixels, but their
random numbers are drawn here: torchvision's come from one generator for all threads.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from pipeline.core.sections import Augment
from pipeline.data.images import decoding
from pipeline.data.images.decoding import WHOLE, Framing, Region

# The views' code version, part of their recipe: raise it whenever a change here changes a pixel.
CODE_VERSION = 2

LIMIT = 2**16
"""Views of an image: their numbers stay below."""

Pixels = npt.NDArray[np.uint8]
Orientation = tuple[bool, int]
"""Whether mirrored, then the quarter-turns to the left."""


def pixels(content: bytes, sha256: str, view: int, framing: Framing, settings: Augment) -> Pixels:
    """Return a view of an image: (3, S, S).

    It depends on the image's bytes, the view's number and the settings alone: every machine and every order of work
    gives the same.

    Raises:
        BadImageError: if the image cannot be decoded.

    """
    if view == 0:
        return decoding.pixels(content, framing)
    seed = hashlib.sha256(f"{sha256} {view}".encode()).digest()
    generator = np.random.default_rng(list(seed))
    square = decoding.pixels(content, framing, _crop(generator, settings.crop))
    angle = generator.uniform(-settings.rotate, settings.rotate)
    brightness, contrast, saturation = generator.uniform(1 - settings.colour, 1 + settings.colour, size=3)
    changed = torch.from_numpy(np.array(square))  # a copy: a grey image is one read-only channel, broadcast
    if settings.rotate:
        changed = _rotate(changed, angle)
    if settings.colour:
        changed = transforms.adjust_saturation(changed, saturation)
        changed = transforms.adjust_contrast(transforms.adjust_brightness(changed, brightness), contrast)
    possible = orientations(settings)
    mirrored, turns = possible[view % len(possible)]
    changed = transforms.horizontal_flip(changed) if mirrored else changed
    return np.asarray(transforms.rotate(changed, 90.0 * turns).numpy())


def orientations(settings: Augment) -> Sequence[Orientation]:
    """Return the ways to mirror and turn an image, the identity first; consecutive views take consecutive ones."""
    mirrors = (False,) if settings.flips == "none" else (False, True)
    if settings.quarter_turns:
        return [(mirrored, turns) for turns in range(4) for mirrored in mirrors]
    if settings.flips == "both":  # upside down is mirrored and half a turn
        return [(False, 0), (True, 0), (True, 2), (False, 2)]
    return [(mirrored, 0) for mirrored in mirrors]


def _crop(generator: np.random.Generator, smallest: float) -> Region:
    """Choose a square of `smallest` to 1 of the side, anywhere inside."""
    side = generator.uniform(smallest, 1)
    left, top = generator.uniform(0, 1 - side, size=2)
    return Region(left, top, left + side, top + side) if smallest < 1 else WHOLE


def _rotate(square: Tensor, angle: float) -> Tensor:
    """Rotate by degrees; the corners are filled with the mirrored border."""
    size = square.shape[-1]
    margin = size // 4  # enough up to 45 degrees: (sqrt(2) - 1) / 2 = 0.21
    padded = transforms.pad(square, [margin], padding_mode="reflect")
    turned: Tensor = transforms.rotate(padded, angle, InterpolationMode.BILINEAR)
    return turned[:, margin : margin + size, margin : margin + size]
