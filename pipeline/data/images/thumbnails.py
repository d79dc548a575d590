"""Thumbnails of the images for the report: single ones for galleries, and all of them in one sprite."""

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
"""Images with a thumbnail, at most."""
SIDE, CELL = 160, 80
"""Pixels: the longest side of a thumbnail at most, and the side of a cell of the sprite."""
QUALITY = 75
"""WebP quality, 0 to 100: at 75 a cell of the demo's sprite takes about 500 bytes."""
_SPLITS = ("test", "val", "train")
_SCHEMA = pa.schema([("image_id", pa.string()), ("picture", pa.binary())])


@dataclass(frozen=True)
class Thumbnails:
    """N thumbnails, and a sprite that shows them row by row, in the order of `image_id`."""

    image_id: Sequence[str]
    pictures: Sequence[bytes]
    """WebP each, with the image's aspect ratio."""
    sprite: bytes
    """WebP: a grid of white cells, each with an image in its middle, as large as fits."""
    columns: int
    """Cells in a row of the grid."""
    cell: int
    """Pixels: the side of a cell."""


def chosen(table: Manifest) -> list[int]:
    """Return the rows that get a thumbnail, LIMIT at most: test first, then validation, then training images.

    Within a split the images' hashes decide the order, so that adding images changes little.
    """
    rows = sorted(range(len(table)), key=lambda row: (_SPLITS.index(table.split[row]), table.sha256[row]))
    return rows[:LIMIT]


def make(table: Manifest, progress: Callable[[], object]) -> Thumbnails:
    """Make the thumbnails, without images that cannot be decoded; the same images give the same bytes.

    Raises:
        StateError: if a file is gone or has changed since `prepare`.

    """
    image_id, pictures, cells = list[str](), list[bytes](), list[Image.Image]()
    rows = chosen(table)
    with ThreadPoolExecutor() as pool:  # Pillow releases the interpreter's lock
        for row, both in zip(rows, pool.map(partial(_thumbnail_and_cell, table), rows), strict=True):
            if both is not None:
                image_id.append(table.image_id[row])
                pictures.append(both[0])
                cells.append(both[1])
            progress()
    columns = max(1, math.ceil(math.sqrt(len(cells))))
    return Thumbnails(image_id, pictures, _sprite(cells, columns), columns, CELL)


def _thumbnail_and_cell(table: Manifest, row: int) -> tuple[bytes, Image.Image] | None:
    """Return an image's thumbnail, and its image for the sprite; None if it cannot be decoded."""
    content = manifest.image_bytes(Path(table.path[row]), table.sha256[row])
    try:
        image = decoding.decode(content, needed=SIDE)
    except BadImageError:
        return None
    return _webp(_resized(image, min(SIDE, max(image.size)))), _resized(image, CELL)


def _resized(image: Image.Image, longest: int) -> Image.Image:
    """Resize an image, whose longest side is given."""
    scale = longest / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _sprite(cells: Sequence[Image.Image], columns: int) -> bytes:
    grey = all(cell.mode == "L" for cell in cells)
    size = (columns * CELL, max(1, math.ceil(len(cells) / columns)) * CELL)
    grid = Image.new("L" if grey else "RGB", size, "white")
    for number, cell in enumerate(cells):
        top, left = (steps * CELL for steps in divmod(number, columns))
        grid.paste(cell, (left + (CELL - cell.width) // 2, top + (CELL - cell.height) // 2))
    return _webp(grid)


def _webp(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY)
    return buffer.getvalue()


def write(thumbnails: Thumbnails) -> int:
    """Write thumbnails, sprite and their stamp; return the bytes of the first two."""
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
    """Read the thumbnails; StateError if their bytes are not the stamped ones."""
    stamp = stamps.read(STAMP)
    sprite, content = stamps.check(SPRITE, stamp), stamps.check(PATH, stamp)
    try:
        table = pq.read_table(BytesIO(content))
        with stamps.requiring_facts(STAMP):
            columns, cell = stamp.facts["columns"], stamp.facts["cell"]
            return Thumbnails(table["image_id"].to_pylist(), table["picture"].to_pylist(), sprite, columns, cell)
    except (pa.ArrowException, OSError) as error:
        raise StateError(f"{PATH}: not a table of pictures; run `dvc repro --force`") from error
