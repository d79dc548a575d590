"""Small pictures of the images, for the report: single ones for galleries, and all of them as one sprite."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.core import artifacts, stamps
from pipeline.core.atomic import replacing
from pipeline.core.errors import StateError
from pipeline.data import manifest
from pipeline.data.images import decoding
from pipeline.data.images.decoding import BadImageError
from pipeline.data.manifest import Manifest

PATH, SPRITE, STAMP = artifacts.THUMBNAILS.at(), artifacts.SPRITE.at(), artifacts.SPRITE.stamp_at()
LIMIT = 3000
"""Images that get a picture."""
SIDE, CELL = 160, 80
"""Pixels: the longest side of a single picture at most, and the side of a square of the sprite."""
QUALITY = 75
"""Of WebP, 0 to 100: at 75 a cell of the demo's sprite takes about 500 bytes."""
_SPLITS = ("test", "val", "train")
_SCHEMA = pa.schema([("image_id", pa.string()), ("picture", pa.binary())])


@dataclass(frozen=True)
class Thumbnails:
    """N pictures, and a sprite that holds them row by row, in the order of `image_id`."""

    image_id: Sequence[str]
    pictures: Sequence[bytes]
    """WebP each, with the image's aspect ratio."""
    sprite: bytes
    """WebP: a grid of squares, each with an image in its middle, as large as fits; white beside it."""
    columns: int
    """Of the grid."""
    cell: int
    """Pixels: the side of a square."""


def chosen(table: Manifest) -> list[int]:
    """Return the rows to picture: LIMIT at most, test first, then validation, each in the order of the images' hashes.

    Adding images then changes little.
    """
    rows = sorted(range(len(table)), key=lambda row: (_SPLITS.index(table.split[row]), table.sha256[row]))
    return rows[:LIMIT]


def make(table: Manifest, progress: Callable[[], object]) -> Thumbnails:
    """Draw the chosen images; those that cannot be decoded are left out. The same images give the same bytes.

    Raises:
        StateError: if a file is gone or has changed since `prepare`.

    """
    image_id, pictures, cells = list[str](), list[bytes](), list[Image.Image]()
    rows = chosen(table)
    with ThreadPoolExecutor() as pool:  # Pillow releases the interpreter's lock
        for row, drawn in zip(rows, pool.map(partial(_drawn, table), rows), strict=True):
            if drawn is not None:
                image_id.append(table.image_id[row])
                pictures.append(drawn[0])
                cells.append(drawn[1])
            progress()
    columns = max(1, math.ceil(math.sqrt(len(cells))))
    return Thumbnails(image_id, pictures, _sprite(cells, columns), columns, CELL)


def _drawn(table: Manifest, row: int) -> tuple[bytes, Image.Image] | None:
    """Return an image's picture, and what stands in its cell; None if it cannot be decoded."""
    content = manifest.image_bytes(Path(table.path[row]), table.sha256[row])
    try:
        image = decoding.decode(content, needed=SIDE)
    except BadImageError:
        return None
    return _webp(_sized(image, min(SIDE, max(image.size)))), _sized(image, CELL)


def _sized(image: Image.Image, longest: int) -> Image.Image:
    """Resize an image to that longest side."""
    scale = longest / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _sprite(cells: Sequence[Image.Image], columns: int) -> bytes:
    grey = all(cell.mode == "L" for cell in cells)
    size = (columns * CELL, max(1, math.ceil(len(cells) / columns)) * CELL)
    grid = Image.new("L" if grey else "RGB", size, "white")
    for place, cell in enumerate(cells):
        top, left = (number * CELL for number in divmod(place, columns))
        grid.paste(cell, (left + (CELL - cell.width) // 2, top + (CELL - cell.height) // 2))
    return _webp(grid)


def _webp(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY)
    return buffer.getvalue()


def write(thumbnails: Thumbnails) -> int:
    """Write pictures, sprite and their stamp; return how many bytes the first two take."""
    columns = [list(thumbnails.image_id), list(thumbnails.pictures)]
    with replacing(PATH) as temporary:
        pq.write_table(pa.table(columns, schema=_SCHEMA), temporary, compression="zstd")
    with replacing(SPRITE) as temporary:
        temporary.write_bytes(thumbnails.sprite)
    facts = {"columns": thumbnails.columns, "cell": thumbnails.cell}
    outputs, inputs = stamps.hashes([PATH, SPRITE]), stamps.read(manifest.STAMP).outputs
    stamps.write(STAMP, stamps.Stamp("thumbnails", outputs, inputs, facts))
    return PATH.stat().st_size + SPRITE.stat().st_size


def read() -> Thumbnails:
    """Read thumbnails whose bytes are the stamped ones; StateError otherwise."""
    stamp = stamps.read(STAMP)
    sprite, content = stamps.check(SPRITE, stamp), stamps.check(PATH, stamp)
    try:
        table = pq.read_table(BytesIO(content))
        with stamps.requiring_facts(STAMP):
            columns, cell = stamp.facts["columns"], stamp.facts["cell"]
            return Thumbnails(table["image_id"].to_pylist(), table["picture"].to_pylist(), sprite, columns, cell)
    except (pa.ArrowException, OSError) as error:
        raise StateError(f"{PATH}: not a table of pictures; run `dvc repro --force`") from error
