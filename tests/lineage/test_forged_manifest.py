"""A forged manifest whose stamp agrees with it is found, or refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core import stamps
from pipeline.core.errors import StateError
from pipeline.core.mismatches import Mismatch
from pipeline.data import exclusions, manifest
from pipeline.lineage.audit import consistency
from pipeline.stages import embed, finetune, prepare, thumbnails
from tests.conftest import Project
from tests.lineage.forging import stamp_anew, write_manifest


def of_images(project: Project) -> list[Mismatch]:
    read = project.write()
    return consistency.checked(lambda: consistency.images(read, manifest.read()), "manifest")


def test_splits_are_computed_again(project: Project) -> None:
    excluded = stamps.sha256_file(project.images[5])
    exclusions.add([excluded], "blurred")
    prepare.main(project.write())
    assert of_images(project) == []
    split = list(manifest.read().split)
    first, second = split.index("test"), split.index("train")
    split[first], split[second] = "train", "test"
    write_manifest(split=split)
    (finding,) = of_images(project)
    assert (finding.path, finding.part) == ("data/manifest.parquet", f"row {min(first, second)}")
    assert "(2 rows differ)" in finding.found


def test_an_image_that_the_data_folder_does_not_list_is_found(project: Project) -> None:
    prepare.main(project.write())
    Path("data/raw/red/00.png").rename("data/raw/red/00.txt")
    assert [finding.path for finding in of_images(project)] == ["data/raw/red/00.png"]


@pytest.mark.parametrize(
    ("image_id", "path"),
    [
        ("red/99.png", "../../evil.png"),
        ("../../evil.png", "data/raw/../../evil.png"),
        ("/etc/passwd", "/etc/passwd"),
        ("red/99.png", "data/other/red/99.png"),
        ("red/./99.png", "data/raw/red/99.png"),
        (None, "data/raw/red/99.png"),
    ],
)
def test_a_path_that_leads_out_of_the_data_folder_is_refused(project: Project, image_id: str, path: str) -> None:
    prepare.main(project.write())
    old = manifest.read()
    write_manifest(image_id=[*old.image_id[:-1], image_id], path=[*old.path[:-1], path])
    with pytest.raises(StateError, match="parquet: row 35: "):
        manifest.read()


def test_stages_open_images_in_the_data_folder_only(project: Project) -> None:
    read = project.write()
    prepare.main(read)
    write_manifest(path=[f"data/other/{image_id}" for image_id in manifest.read().image_id])
    stages = (thumbnails.main, lambda read: embed.main(read, "tiny"), lambda read: finetune.main(read, "tiny", "last"))
    for stage in stages:
        with pytest.raises(StateError, match="got images in data/other, expected data/raw as in params.yaml"):
            stage(read)


@pytest.mark.parametrize("content", [b"garbage", b"PAR1" * 9, None])
def test_a_file_that_is_no_manifest_is_refused_in_one_line(project: Project, content: bytes | None) -> None:
    prepare.main(project.write())
    if content is None:
        numbers = {name: [1] for name in manifest.COLUMNS} | {"label": [[1]]}
        pq.write_table(pa.table(numbers), manifest.MANIFEST)
    else:
        manifest.MANIFEST.write_bytes(content)
    stamp_anew(manifest.STAMP)
    with pytest.raises(StateError, match="not a manifest"):
        manifest.read()


@pytest.mark.parametrize(
    "content",
    [
        '{"stage": "a", "outputs": {}, "inputs": {}, "facts": null}',
        '{"stage": "a", "outputs": ["x"], "inputs": {}}',
        '{"stage": "a", "outputs": {"x": 1}, "inputs": {}}',
        '{"stage": "a", "outputs": {}, "inputs": null}',
        '{"stage": 1, "outputs": {}, "inputs": {}}',
        "[" * 200_000,
    ],
)
def test_a_stamp_with_other_types_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "stamp.json").write_text(content)
    with pytest.raises(StateError, match="is not a stamp"):
        stamps.read(tmp_path / "stamp.json")
