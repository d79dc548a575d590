import struct
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pipeline.data.images import decoding
from pipeline.data.images.decoding import BadImageError, Framing


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rgb(content: bytes) -> np.ndarray:
    return np.asarray(decoding.decode(content).convert("RGB"))


def pixel(content: bytes) -> tuple[int, ...]:
    return tuple(rgb(content)[0, 0].tolist())


def tiff(values: np.ndarray, bits: int, *, white_is_zero: bool = False, order: str = "<", packed: bytes = b"") -> bytes:
    """Write an uncompressed grey TIFF by hand, for Pillow writes none of these."""
    data = packed or values.astype(f"{order}u{bits // 8}").tobytes()
    height, width = values.shape
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 0 if white_is_zero else 1), (273, 134), (277, 1),
            (278, height), (279, len(data))]  # fmt: skip
    entries = b"".join(struct.pack(f"{order}HHI", tag, 4, 1) + struct.pack(f"{order}I", value) for tag, value in tags)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(tags))
    return (head + entries + bytes(4)).ljust(134, b"\0") + data


def test_threads_that_decode_at_once_leave_the_filters_of_warnings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    content, before, real = encoded(Image.new("RGB", (4, 4))), list(warnings.filters), decoding._opened
    together = threading.Barrier(8)

    def opened(content: bytes) -> Image.Image:
        together.wait()
        return real(content)

    monkeypatch.setattr(decoding, "_opened", opened)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decoding.decode, [content] * 8))
    assert warnings.filters == before


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
def test_white_is_white_in_every_mode(mode: str) -> None:
    image = Image.new("RGB", (4, 4), "white").convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert pixel(encoded(image, kind)) == (255, 255, 255)


def test_sixteen_bit_grey_keeps_its_range() -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for content in (encoded(Image.fromarray(values)), encoded(Image.fromarray(values), "TIFF"), tiff(values, 16),
                    tiff(values, 16, order=">"), b"P5 4 1 65535\n" + values.astype(">u2").tobytes()):  # fmt: skip
        assert rgb(content)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_sixteen_bit_grey_is_rounded_to_the_nearest_of_eight() -> None:
    values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(rgb(encoded(Image.fromarray(values)))[..., 0], np.rint(values / 257))


def test_twelve_bit_grey_keeps_its_range() -> None:
    packed = bytes([0x00, 0x08, 0x00, 0xFF, 0xFF, 0xFF])  # 0, 2048, 4095, 4095
    assert rgb(tiff(np.zeros((1, 4)), 12, packed=packed))[0, :, 0].tolist() == [0, 128, 255, 255]


@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_zero_comes_out_the_right_way_round(bits: int) -> None:
    values = np.array([[0, 2**bits - 1]])
    assert rgb(tiff(values, bits, white_is_zero=True))[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("kind", ["PBM", "PGM", "PPM"])
def test_plain_raster_formats_of_science_are_read(kind: str) -> None:
    mode = {"PBM": "1", "PGM": "L", "PPM": "RGB"}[kind]
    assert pixel(encoded(Image.new("RGB", (4, 4), "white").convert(mode), "PPM")) == (255, 255, 255)


def test_lab_shows_the_colours_it_stands_for() -> None:
    # sRGB red is L* 53.2, a* 80.1, b* 67.2 (CIE 1976); Pillow keeps a* and b* with 128 added
    content = encoded(Image.merge("LAB", [Image.new("L", (4, 4), value) for value in (136, 208, 195)]), "TIFF")
    assert np.abs(np.array(pixel(content)) - [255, 0, 0]).max() < 12


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_of_several_frames_is_used(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    assert pixel(encoded(frames[0], kind, save_all=True, append_images=frames[1:])) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "WEBP", "GIF", "TIFF"])
def test_the_content_decides_and_not_the_name(kind: str) -> None:
    assert min(pixel(encoded(Image.new("RGB", (8, 8), "white"), kind))) > 250


def test_ycbcr_and_adobes_cmyk_jpegs_are_read() -> None:
    for mode in ("YCbCr", "CMYK"):
        assert min(pixel(encoded(Image.new("RGB", (8, 8), "white").convert(mode), "JPEG"))) > 250


def test_half_transparent_is_half_white() -> None:
    for mode in ("RGBA", "LA"):
        image = Image.new(mode, (4, 4), (0,) * (len(mode) - 1) + (128,))
        assert pixel(encoded(image)) == (127, 127, 127)


def test_a_palettes_transparent_colour_is_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([200, 0, 0])
    assert pixel(encoded(image, "GIF", transparency=0)) == (255, 255, 255)
    assert pixel(encoded(image, "GIF")) == (200, 0, 0)


def test_transparent_pixels_show_white_and_not_what_they_hide() -> None:
    assert pixel(encoded(Image.new("RGBA", (4, 4), (200, 0, 0, 0)))) == (255, 255, 255)


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (8, 4), "black")
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert decoding.decode(encoded(image, "JPEG", exif=exif)).size == (4, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(orientation: int) -> None:
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6) * 10)
    exif = image.getexif()
    exif[0x0112] = orientation
    content = encoded(image, exif=exif)
    np.testing.assert_array_equal(
        rgb(content),
        np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(content))).convert("RGB")),
    )


def test_whatever_a_decoder_raises_is_a_bad_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise struct.error("required argument is not an integer")

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(BadImageError, match="required argument"):
        decoding.decode(b"x")


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
        decoding.decode(content)


def test_a_bomb_is_refused_before_its_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 100)
    with pytest.raises(BadImageError, match="11 x 10 pixels"):
        decoding.decode(encoded(Image.new("1", (11, 10))))


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_arbitrary_bytes_are_an_image_or_a_bad_image(content: bytes) -> None:
    for prefix in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM"):
        try:
            decoding.decode(prefix + content)
        except BadImageError:
            continue


@given(width=st.integers(1, 60), height=st.integers(1, 60), crop=st.floats(0.5, 1))
@settings(max_examples=50)
def test_every_shape_becomes_the_wanted_square(width: int, height: int, crop: float) -> None:
    square = decoding.square(Image.new("RGB", (width, height), "white"), Framing(16, crop))
    assert square.shape == (16, 16, 3)
    assert (square == 255).all()


def test_the_square_is_the_centre_of_the_longer_side() -> None:
    image = Image.new("RGB", (90, 30), "black")
    image.paste("white", (30, 0, 60, 30))
    square = decoding.square(image, Framing(30, 1.0))
    assert square[:, 4:-4].min() == 255


def test_a_region_is_that_part_of_the_square_enlarged() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    part = decoding.square(image, Framing(20, 1.0), decoding.Region(0.25, 0, 0.75, 0.5))
    np.testing.assert_array_equal(part, pixels[:20, 20:40])


@given(width=st.integers(1, 60), height=st.integers(1, 60), mode=st.sampled_from(["1", "L"]), crop=st.floats(0.5, 1))
@settings(max_examples=50)
def test_grey_decoded_once_is_what_three_channels_would_be(width: int, height: int, mode: str, crop: float) -> None:
    noise = np.random.default_rng([width, height]).integers(0, 256, (height, width), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    framing = Framing(16, crop)
    found = decoding.pixels(encoded(image), framing)
    np.testing.assert_array_equal(found, decoding.square(image.convert("RGB"), framing).transpose(2, 0, 1))
    assert found.shape == (3, 16, 16)
    assert found.strides[0] == 0  # one channel, seen three times


class TestScaledJpeg:
    FRAMING = Framing(50, 0.875, scaled_jpeg=True)  # needs 58 pixels

    @staticmethod
    def photograph(side: int, mode: str = "RGB", **options: Any) -> bytes:
        small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((side, 2 * side), Image.Resampling.BICUBIC).convert(mode)
        return encoded(image, "JPEG", quality=95, **options)

    @pytest.mark.parametrize(("side", "decoded"), [(57, 57), (115, 115), (116, 58), (240, 60), (464, 58), (2000, 250)])
    def test_a_jpeg_is_decoded_no_smaller_than_needed(self, side: int, decoded: int) -> None:
        assert decoding.decode(self.photograph(side), 58).size == (decoded, 2 * decoded)

    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_the_square_stays_close_to_that_of_the_full_decode(self, mode: str) -> None:
        content = self.photograph(600, mode)
        full = decoding.pixels(content, self.FRAMING._replace(scaled_jpeg=False)).astype(int)
        scaled = decoding.pixels(content, self.FRAMING)
        assert 0 < np.abs(scaled - full).max() <= 8
        assert np.abs(scaled - full).mean() < 1

    def test_small_ones_and_other_formats_are_not_touched(self) -> None:
        for content in (self.photograph(115), encoded(Image.effect_noise((300, 300), 50))):
            full = decoding.pixels(content, self.FRAMING._replace(scaled_jpeg=False))
            np.testing.assert_array_equal(decoding.pixels(content, self.FRAMING), full)

    def test_an_enlarged_region_keeps_the_pixels_it_needs(self) -> None:
        content, half = self.photograph(200), decoding.Region(0, 0, 0.5, 0.5)
        full = decoding.pixels(content, self.FRAMING._replace(scaled_jpeg=False), half)
        np.testing.assert_array_equal(decoding.pixels(content, self.FRAMING, half), full)

    def test_orientation_is_still_applied(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        assert decoding.decode(self.photograph(240, exif=exif), 58).size == (120, 60)


def test_resizing_agrees_with_torchvisions() -> None:
    from torchvision.transforms import v2

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 80, 3), dtype=np.uint8))
    reference = v2.Compose([v2.Resize(40, v2.InterpolationMode.BICUBIC), v2.CenterCrop(40)])(image)
    assert np.abs(decoding.square(image, Framing(40, 1.0)).astype(int) - np.asarray(reference)).max() <= 2
