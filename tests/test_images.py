import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pipeline import images
from pipeline.images import BadImageError, Framing


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixel(content: bytes) -> tuple[int, ...]:
    return images.decode(content).getpixel((0, 0))  # type: ignore[return-value]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
def test_white_is_white_in_every_mode(mode: str) -> None:
    image = Image.new("RGB", (4, 4), "white").convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert pixel(encoded(image, kind)) == (255, 255, 255)


def test_sixteen_bit_grey_keeps_its_range() -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    decoded = np.asarray(images.decode(encoded(Image.fromarray(values))))
    assert decoded[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparent_pixels_show_white_and_not_what_they_hide() -> None:
    assert pixel(encoded(Image.new("RGBA", (4, 4), (200, 0, 0, 0)))) == (255, 255, 255)


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (8, 4), "black")
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert images.decode(encoded(image, "JPEG", exif=exif)).size == (4, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(orientation: int) -> None:
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6) * 10)
    exif = image.getexif()
    exif[0x0112] = orientation
    content = encoded(image, exif=exif)
    np.testing.assert_array_equal(
        np.asarray(images.decode(content)),
        np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(content))).convert("RGB")),
    )


def test_whatever_a_decoder_raises_is_a_bad_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise struct.error("required argument is not an integer")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(BadImageError, match="required argument"):
        images.decode(b"x")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"just text", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (encoded(Image.effect_noise((64, 64), 50))[:900], "cannot be decoded"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "no agreed range"),
        (encoded(Image.new("I", (4, 4)), "TIFF"), "no agreed range"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        images.decode(content)


def test_a_bomb_is_refused_before_its_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(BadImageError, match="11 x 10 pixels"):
        images.decode(encoded(Image.new("1", (11, 10))))


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_arbitrary_bytes_are_an_image_or_a_bad_image(content: bytes) -> None:
    for prefix in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM"):
        try:
            images.decode(prefix + content)
        except BadImageError:
            continue


@given(width=st.integers(1, 60), height=st.integers(1, 60), crop=st.floats(0.5, 1))
@settings(max_examples=50)
def test_every_shape_becomes_the_wanted_square(width: int, height: int, crop: float) -> None:
    square = images.square(Image.new("RGB", (width, height), "white"), Framing(16, crop))
    assert square.shape == (16, 16, 3)
    assert (square == 255).all()


def test_the_square_is_the_centre_of_the_longer_side() -> None:
    image = Image.new("RGB", (90, 30), "black")
    image.paste("white", (30, 0, 60, 30))
    square = images.square(image, Framing(30, 1.0))
    assert square[:, 4:-4].min() == 255


def test_resizing_agrees_with_torchvisions() -> None:
    from torchvision.transforms import v2

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 80, 3), dtype=np.uint8))
    reference = v2.Compose([v2.Resize(40, v2.InterpolationMode.BICUBIC), v2.CenterCrop(40)])(image)
    assert np.abs(images.square(image, Framing(40, 1.0)).astype(int) - np.asarray(reference)).max() <= 2
