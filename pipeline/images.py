"""The one definition of how bytes become an RGB array, and what counts as a bad image."""

import warnings
from io import BytesIO
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

# Only plain raster formats: some of Pillow's other readers start programs (EPS) or fetch other files.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
MAX_PIXELS = 100_000_000

# EXIF orientation -> what turns the stored pixels upright (EXIF 2.32, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

RGB = npt.NDArray[np.uint8]


class Framing(NamedTuple):
    """How an image of any shape becomes a square: its side in pixels, and the fraction of the shorter side kept."""

    size: int
    crop: float
    scaled_jpeg: bool = False


class BadImageError(Exception):
    """These bytes are no image that can be used; the message says why, without the path."""


def decode(content: bytes) -> Image.Image:
    """Turn a file's bytes into an upright RGB image.

    EXIF orientation is applied; transparency is laid over white, as a web page would show it; 16-bit grey is scaled
    to 8 bits; of an animation or multi-page file the first frame counts. 32-bit integer and float images have no
    agreed range and are refused, as is anything truncated or of more than MAX_PIXELS pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of much that the checks here refuse or define
            return _to_rgb(_open(content))
    except BadImageError:
        raise
    except UnidentifiedImageError as error:
        raise BadImageError(f"not an image in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # damaged files make the decoders raise whatever it is that goes wrong inside
        raise BadImageError(f"cannot be decoded ({' '.join(str(error).split())})") from error


def _open(content: bytes) -> Image.Image:
    if not content:
        raise BadImageError("0 bytes")
    image = Image.open(BytesIO(content), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(f"{image.width} x {image.height} pixels, expected at most {MAX_PIXELS:,} in all")
    image.load()
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image.transpose(turn) if turn is not None else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in {"I", "F"}:
        raise BadImageError(f"32-bit pixels (mode {image.mode}) have no agreed range; store 8 or 16 bits")
    if image.mode.startswith("I;16"):
        high_byte = (np.asarray(image).astype(np.uint32) + 128) // 257
        return Image.fromarray(high_byte.astype(np.uint8), "L").convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, framing: Framing) -> RGB:
    """Resize the shorter side to size / crop (bicubic, antialiased), then cut the central size x size square.

    Returns:
        (size, size, 3) uint8, values 0-255.

    """
    size = framing.size
    scale = size / framing.crop / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) / 2, (height - size) / 2
    # One resampling straight from the wanted box of the original: no intermediate image, no second rounding.
    box = (left / width * image.width, top / height * image.height,
           (left + size) / width * image.width, (top + size) / height * image.height)  # fmt: skip
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))


class Region(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float


WHOLE = Region(0, 0, 1, 1)


def pixels(content: bytes, framing: Framing, region: Region = WHOLE) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(square(decode(content), framing).transpose(2, 0, 1))
