import dataclasses
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.errors import StateError
from pipeline.data import manifest
from pipeline.data.images import thumbnails
from pipeline.data.images.thumbnails import CELL, PATH, SIDE, SPRITE, STAMP, Thumbnails
from pipeline.stages import prepare
from pipeline.stages import thumbnails as stage
from tests.conftest import Project


def made(project: Project) -> Thumbnails:
    prepare.main(project.write())
    return thumbnails.make(manifest.read(), lambda: None)


def opened(content: bytes) -> Image.Image:
    return Image.open(BytesIO(content))


def cells(drawn: Thumbnails) -> list[np.ndarray]:
    grid = np.asarray(opened(drawn.sprite).convert("RGB"))
    places = [divmod(number, drawn.columns) for number in range(len(drawn.image_id))]
    return [grid[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] for row, column in places]


def test_what_is_written_reads_back(project: Project) -> None:
    drawn = made(project)
    size = thumbnails.write(drawn)
    assert thumbnails.read() == drawn
    assert size == PATH.stat().st_size + SPRITE.stat().st_size


def test_the_stage_says_how_many_thumbnails_it_made(project: Project) -> None:
    prepare.main(project.write())
    assert stage.main(project.write()) == "36 of 36 images pictured, 0.1 MB"


@pytest.mark.parametrize("path", [PATH, SPRITE])
def test_altered_bytes_are_refused(project: Project, path: Path) -> None:
    thumbnails.write(made(project))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StateError, match=f"{path}: sha256"):
        thumbnails.read()


def test_a_stamp_without_the_grid_is_refused(project: Project) -> None:
    thumbnails.write(made(project))
    STAMP.write_text(STAMP.read_text().replace('"columns"', '"rows"'))
    with pytest.raises(StateError, match="lacks 'columns'"):
        thumbnails.read()


def test_test_images_come_first_and_the_last_training_images_are_left_out(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare.main(project.write())
    table = manifest.read()
    monkeypatch.setattr(thumbnails, "LIMIT", 30)
    rows = thumbnails.chosen(table)
    splits = [table.split[row] for row in rows]
    assert len(rows) == 30
    assert splits == sorted(splits, key=("test", "val", "train").index)
    assert splits.count("test") == list(table.split).count("test")
    hashes = sorted(sha256 for sha256, split in zip(table.sha256, table.split, strict=True) if split == "train")
    kept = [table.sha256[row] for row in rows if table.split[row] == "train"]
    assert kept == hashes[: len(kept)]


def test_an_image_that_cannot_be_decoded_is_left_out(project: Project) -> None:
    project.images[3].write_bytes(b"no image")
    drawn = made(project)
    assert len(drawn.image_id) == len(drawn.pictures) == 35
    assert "blue/03.png" not in drawn.image_id


def test_where_no_image_can_be_decoded_the_sprite_is_blank(project: Project) -> None:
    for number, path in enumerate(project.images):
        path.write_bytes(f"no image {number}".encode())
    assert made(project) == dataclasses.replace(made(project), image_id=[], pictures=[], columns=1)


def test_a_changed_image_is_refused(project: Project) -> None:
    made(project)
    project.images[0].write_bytes(project.images[1].read_bytes())
    with pytest.raises(StateError, match="blue/00.png: changed since `prepare` hashed it"):
        thumbnails.make(manifest.read(), lambda: None)


def test_the_same_images_give_the_same_bytes(project: Project) -> None:
    written = []
    for _ in range(2):
        thumbnails.write(made(project))
        written.append([path.read_bytes() for path in (PATH, SPRITE, STAMP)])
    assert written[0] == written[1]


def test_each_image_is_in_its_cell(project: Project) -> None:
    drawn = made(project)
    width = round(CELL * 32 / 36)  # conftest's are 32 wide and 36 high
    for image_id, cell in zip(drawn.image_id, cells(drawn), strict=True):
        pixels = np.asarray(Image.open(Path("data/raw") / image_id))
        inside = cell[:, (CELL - width) // 2 :][:, :width]
        np.testing.assert_allclose(inside.mean((0, 1)), pixels.mean((0, 1)), atol=6)
        assert cell[:, 0].mean() > 240


@pytest.mark.parametrize(("size", "expected"), [((400, 100), (160, 40)), ((9, 30), (9, 30)), ((1, 900), (1, 160))])
def test_a_picture_keeps_its_aspect_ratio_and_is_never_enlarged(
    project: Project, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    Image.new("RGB", size, "red").save(project.images[0])
    drawn = made(project)
    picture = opened(drawn.pictures[list(drawn.image_id).index("blue/00.png")])
    assert picture.size == expected
    assert max(picture.size) <= SIDE


def test_grey_images_stay_grey(project: Project) -> None:
    for number, path in enumerate(project.images):
        Image.new("L", (20, 20), number * 6).save(path)
    drawn = made(project)
    for content in (drawn.sprite, drawn.pictures[5]):
        pixels = np.asarray(opened(content).convert("RGB")).astype(int)
        assert np.ptp(pixels, axis=2).max() <= 1
