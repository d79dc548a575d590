"""Small data sets with known faults."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from pipeline.data.manifest import Manifest
from pipeline.quality import signatures
from pipeline.quality.findings import Material
from pipeline.quality.signatures import Parts

Change = Callable[[Image.Image], Image.Image]
SPLITS = ("train", "train", "val", "test")


def cloud(number: int, side: int = 200) -> Image.Image:
    """Return a picture of its own: noise whose amplitudes fall with frequency as photographs' do."""
    generator = np.random.default_rng(number)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)) + 1 / side
    pixels = np.fft.irfft2(np.fft.rfft2(generator.normal(size=(side, side))) / frequency, (side, side))
    return Image.fromarray(np.clip(128 + 50 * pixels / pixels.std(), 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def parts(*contents: bytes) -> Parts:
    return signatures.parts(np.stack([signatures.of(content) for content in contents]))


def material(n: int = 60, classes: int = 3, width: int = 8, **columns: Any) -> Material:
    """Return n images of easily told classes, nothing wrong with them; `columns` of the manifest may differ."""
    generator = np.random.default_rng(0)
    target = np.arange(n) % classes
    names = [f"{number:03}.png" for number in range(n)]
    defaults = {
        "image_id": names,
        "path": [f"raw/{name}" for name in names],
        "sha256": [f"{number:064x}" for number in range(n)],
        "label": [f"class {number}" for number in target],
        "group": [None] * n,
        "split": [SPLITS[number // classes % len(SPLITS)] for number in range(n)],
    }
    table = Manifest(**{**defaults, **columns})
    X = 4 * np.eye(width)[target] + generator.normal(size=(n, width)) * 0.3 + 5
    seen = parts(*(encoded(cloud(number, 64)) for number in range(n)))
    return Material(table, np.arange(n), X.astype(np.float16), seen, 0.96, 0)
