"""Copies of an image are found whatever was done to them, and other images are not."""

from typing import Any

import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_info, threadpool_limits

from pipeline.quality import candidates, copies
from tests.quality.examples import Change, cloud, encoded, parts

N = 40
CHANGES: dict[str, Change] = {
    "as it is": lambda image: image,
    "halved": lambda image: image.resize((100, 100)),
    "larger": lambda image: image.resize((300, 300)),
    "brighter": lambda image: image.point(lambda value: min(255, round(value * 1.1))),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "without 2.5% of each border": lambda image: image.crop((5, 5, 195, 195)),
    "without 5% on the left": lambda image: image.crop((10, 0, 200, 200)),
    "without 5% below": lambda image: image.crop((0, 0, 200, 190)),
}


def pairs(*contents: bytes, least: float = 0.96) -> set[frozenset[int]]:
    found, score = copies.find(parts(*contents), least, 0)
    assert (score >= least).all()
    return {frozenset(pair) for pair in zip(found.first.tolist(), found.second.tolist(), strict=True)}


def others() -> list[bytes]:
    return [encoded(cloud(number)) for number in range(N)]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("quality", [60, 90])
def test_a_changed_copy_is_found_and_nothing_else(change: str, quality: int) -> None:
    copy = encoded(CHANGES[change](cloud(3)), "JPEG", quality=quality)
    assert pairs(*others(), copy) == {frozenset((3, N))}


def test_another_picture_in_the_same_frame_is_no_copy() -> None:
    def framed(number: int) -> bytes:
        image = Image.new("L", (200, 200), 10)
        image.paste(cloud(number).crop((0, 0, 120, 120)), (40, 40))
        return encoded(image)

    assert pairs(*(framed(number) for number in range(N))) == set()
    assert pairs(*(framed(number) for number in range(N)), framed(5)) == {frozenset((5, N))}


def test_pictures_that_differ_in_colour_are_no_copies() -> None:
    grey = cloud(3)
    red = Image.merge("RGB", (grey, grey.point(lambda value: value // 2), grey.point(lambda value: value // 2)))
    blue = Image.merge("RGB", red.split()[::-1])
    assert pairs(*others()[5:], encoded(red), encoded(blue)) == set()
    assert pairs(*others()[5:], encoded(red), encoded(red, "JPEG")) == {frozenset((N - 5, N - 4))}


@pytest.mark.parametrize("band", [1, 2])
def test_a_difference_in_one_of_cb_and_cr_is_enough(band: int) -> None:
    def coloured(value: int) -> bytes:
        bands = [cloud(3).point(lambda grey: 90 + grey // 4), *(Image.new("L", (200, 200), 128) for _ in range(2))]
        bands[band] = Image.new("L", (200, 200), value)
        return encoded(Image.merge("YCbCr", bands).convert("RGB"))

    assert pairs(*others()[5:], coloured(108), coloured(148)) == set()
    assert pairs(*others()[5:], coloured(108), coloured(112)) == {frozenset((N - 5, N - 4))}


def test_blank_images_are_no_copies_of_each_other() -> None:
    assert pairs(*others(), *(encoded(Image.new("L", (64, 64), grey)) for grey in (0, 128, 255))) == set()


def test_a_small_copy_of_a_small_image_is_compared_at_their_common_detail() -> None:
    small = [encoded(cloud(number, 28)) for number in range(N)]
    assert pairs(*small, encoded(cloud(3, 28).resize((22, 22)))) == {frozenset((3, N))}


def test_candidates_are_sought_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    real, threads = candidates.find, set()

    def find(*args: Any) -> candidates.Pairs:
        threads.update(one["num_threads"] for one in threadpool_info())
        return real(*args)

    monkeypatch.setattr(candidates, "find", find)
    with threadpool_limits(2):
        pairs(*others())
    assert threads <= {1}


def test_the_same_images_give_the_same_scores() -> None:
    given = parts(*others(), encoded(CHANGES["without 5% below"](cloud(3))))
    np.testing.assert_array_equal(copies.find(given, 0.9, 0)[1], copies.find(given, 0.9, 0)[1])
