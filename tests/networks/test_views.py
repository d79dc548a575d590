from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from pipeline.core import stamps
from pipeline.core.sections import Augment
from pipeline.data.images import decoding
from pipeline.data.images.decoding import Framing
from pipeline.networks import views

FRAMING = Framing(32, 1.0)
STILL = Augment(flips="none", crop=1.0, rotate=0)


def photograph(seed: int = 0) -> bytes:
    """Make a smooth image in which no two places look alike."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


CONTENT = photograph()
SHA256 = stamps.sha256_bytes(CONTENT)
PLAIN = decoding.pixels(CONTENT, FRAMING)


def view(number: int, settings: Augment, sha256: str = SHA256) -> views.Pixels:
    return views.pixels(CONTENT, sha256, number, FRAMING, settings)


def test_view_0_is_the_image_as_it_is_whatever_the_settings() -> None:
    np.testing.assert_array_equal(view(0, Augment(flips="both", crop=0.5, rotate=30)), PLAIN)


def test_a_view_is_the_same_every_time_and_differs_from_the_next() -> None:
    settings = Augment(flips="both", crop=0.6, rotate=20)
    np.testing.assert_array_equal(view(3, settings), view(3, settings))
    assert (view(3, settings) != view(4, settings)).any()
    assert (view(3, settings) != view(3, settings, sha256="0" * 64)).any()


def test_without_any_change_allowed_every_view_is_the_image() -> None:
    np.testing.assert_array_equal(view(5, STILL), PLAIN)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"flips": "horizontal"}, ["", "h"]),
        ({"flips": "both"}, ["", "h", "v", "hv"]),
        ({"quarter_turns": True}, ["", "r", "rr", "rrr"]),
        ({"flips": "horizontal", "quarter_turns": True}, ["", "r", "rr", "rrr", "h", "hr", "hrr", "hrrr"]),
        ({"flips": "both", "quarter_turns": True}, ["", "r", "rr", "rrr", "h", "hr", "hrr", "hrrr"]),
    ],
)
def test_as_many_views_as_there_are_orientations_show_each_of_them_once(
    settings: dict[str, object], expected: list[str]
) -> None:
    seen = [view(number, STILL.model_copy(update=settings)).tobytes() for number in range(len(expected))]
    assert sorted(seen) == sorted(oriented(PLAIN, steps).tobytes() for steps in expected)


def oriented(pixels: views.Pixels, steps: str) -> views.Pixels:
    """Mirror (h, v) and turn (r) with NumPy."""
    for step in steps:
        pixels = {"h": pixels[:, :, ::-1], "v": pixels[:, ::-1], "r": np.rot90(pixels, axes=(1, 2))}[step]
    return pixels


def test_colour_changes_by_the_fraction_at_most() -> None:
    grey = BytesIO()
    Image.new("L", (40, 40), 100).save(grey, "PNG")
    seen = [views.pixels(grey.getvalue(), "0" * 64, number, FRAMING, STILL.model_copy(update={"colour": 0.2}))
            for number in range(1, 60)]  # fmt: skip
    means = [float(one.mean()) for one in seen]
    assert 80 - 3 <= min(means) < 90  # each of three steps rounds down
    assert 110 < max(means) <= 120
    assert len(set(means)) > 20


def test_a_crop_is_a_square_part_of_the_image_enlarged() -> None:
    settings = STILL.model_copy(update={"crop": 0.5})
    region = views._crop(np.random.default_rng(list(views.hashlib.sha256(f"{SHA256} 7".encode()).digest())), 0.5)
    assert 0.5 <= region.right - region.left <= 1
    assert region.right - region.left == pytest.approx(region.bottom - region.top)
    image = Image.open(BytesIO(CONTENT))
    box = tuple(48 * part for part in region)
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC, box=box)).transpose(2, 0, 1)  # type: ignore[arg-type]
    np.testing.assert_allclose(view(7, settings).astype(int), expected, atol=1)


def test_a_rotation_leaves_no_corner_empty_and_keeps_the_centre() -> None:
    white = BytesIO()
    Image.new("RGB", (40, 40), "white").save(white, "PNG")
    turned = views.pixels(white.getvalue(), "0" * 64, 1, FRAMING, STILL.model_copy(update={"rotate": 45}))
    assert turned.min() == 255
    slightly = view(1, STILL.model_copy(update={"rotate": 2}))
    assert np.abs(slightly[:, 12:20, 12:20].astype(int) - PLAIN[:, 12:20, 12:20]).mean() < 12
    assert (slightly != PLAIN).any()
