"""The one definition of how bytes become pixels, and of a bad image; docs/images.md explains it to users."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from pipeline.core.errors import one_line

# Only plain raster formats: some of Pillow's other readers start programs (EPS) or fetch other files.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pbm", ".pgm", ".ppm", ".pnm"}
)
MAX_PIXELS = 100_000_000

# EXIF orientation -> the operation that turns the stored pixels upright (EXIF 2.32, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Pixels = npt.NDArray[np.uint8]

# TIFF 6.0, section 8: baseline fields.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


class Framing(NamedTuple):
    """How an image of any shape becomes a square: its side in pixels, and the fraction of the shorter side kept.

    With `scaled_jpeg`, a large JPEG is decoded at a half, a quarter or an eighth of its size, if that is still large
    enough: this is several times faster, and gives slightly other pixels.
    """

    size: int
    crop: float
    scaled_jpeg: bool = False


class Region(NamedTuple):
    """A part of the central square, as fractions of its side."""

    left: float
    top: float
    right: float
    bottom: float


WHOLE = Region(0, 0, 1, 1)


class BadImageError(Exception):
    """These bytes are not a usable image; the message says why, without the path."""


def pixels(content: bytes, framing: Framing, region: Region = WHOLE) -> Pixels:
    """Turn a file's bytes into a square: (3, size, size) uint8, values 0-255, read-only where the image is grey.

    A grey image is decoded and resized as one channel, which is then broadcast to three.

    Raises:
        BadImageError: if they cannot be decoded.

    """
    needed = math.ceil(framing.size / framing.crop / (region.right - region.left)) if framing.scaled_jpeg else None
    framed = square(decode(content, needed), framing, region)
    if framed.ndim == 2:
        return np.broadcast_to(framed, (3, *framed.shape))
    return framed.transpose(2, 0, 1)


def decode(content: bytes, needed: int | None = None) -> Image.Image:
    """Turn a file's bytes into an upright image, grey (mode L) or RGB.

    EXIF orientation is applied; transparency is blended with white, as a web page shows it; 12 and 16-bit grey is
    scaled to 8 bits; an animation or multi-page file gives its first frame; colour profiles are ignored. 32-bit integer
    and float images have no agreed range and are refused, as is any file that is truncated or has more than MAX_PIXELS
    pixels.

    Args:
        content: of the file.
        needed: the shorter side, in pixels, to which decoding may scale a JPEG down.

    """
    with _as_bad_image():
        return _to_eight_bits(_loaded(content, needed))


def dimensions(content: bytes) -> tuple[int, int]:
    """Return width and height as the file's header states them; BadImageError if it does not."""
    with _as_bad_image():
        return _opened(content).size


@contextmanager
def _as_bad_image() -> Iterator[None]:
    try:
        yield
    except BadImageError:
        raise
    except UnidentifiedImageError as error:
        raise BadImageError(f"not an image in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # the decoders raise many kinds of errors on damaged files
        raise BadImageError(f"cannot be decoded ({one_line(error)})") from error


def _opened(content: bytes) -> Image.Image:
    if not content:
        raise BadImageError("0 bytes")
    image = Image.open(BytesIO(content), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(f"{image.width} x {image.height} pixels, expected at most {MAX_PIXELS:,} in all")
    return image


def _loaded(content: bytes, needed: int | None) -> Image.Image:
    image = _opened(content)
    if needed is not None:
        image.draft(None, (needed, needed))  # has an effect on JPEGs only
    image.load()
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image.transpose(turn) if turn is not None else image


def _to_eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _from_sixteen_bits(image)
    if image.mode in {"I", "F"}:
        raise BadImageError(f"32-bit pixels (mode {image.mode}) have no agreed range; store 8 or 16 bits")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    if image.mode == "LAB":
        return ImageCms.applyTransform(image, _lab_to_rgb()) or image
    return image.convert("L" if image.mode in {"1", "L"} else "RGB")


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    """Scale grey of up to 16 bits to 8, rounding; a TIFF states the number of bits, and whether 0 is white."""
    tags = getattr(image, "tag_v2", {})
    largest = 2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1
    values = np.asarray(image).astype(np.uint32)
    scaled = ((values * 255 + largest // 2) // largest).astype(np.uint8)
    return Image.fromarray(255 - scaled if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else scaled)


@cache
def _lab_to_rgb() -> ImageCms.ImageCmsTransform:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB")


def square(image: Image.Image, framing: Framing, region: Region = WHOLE) -> Pixels:
    """Resize the shorter side to size / crop (bicubic, antialiased), then cut the central size x size square.

    If `region` is given, only that part of the square is shown, enlarged to its full size.

    Returns:
        (size, size) uint8 for a grey image, else (size, size, 3), values 0-255.

    """
    size = framing.size
    scale = size / framing.crop / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) / 2, (height - size) / 2
    # One resampling from the box in the original: no intermediate image, no second rounding.
    sides = ((left, width, image.width), (top, height, image.height))
    starts, ends = (
        [(at + size * part) / whole * side for part, (at, whole, side) in zip(corner, sides, strict=True)]
        for corner in (region[:2], region[2:])
    )
    return np.asarray(
        image.resize((size, size), Image.Resampling.BICUBIC, box=(starts[0], starts[1], ends[0], ends[1]))
    )
