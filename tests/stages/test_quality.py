"""What is wrong with the data, as a stage; and what comes of a person's decisions."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pipeline.core import stamps
from pipeline.core.errors import CheckFailed, InputError, StateError
from pipeline.core.params import Params
from pipeline.data import exclusions, manifest
from pipeline.embeddings import matrix
from pipeline.quality import checks, files, signatures
from pipeline.quality.checks import CHECKS
from pipeline.stages import embed, prepare, quality
from tests.conftest import Project


def looked_at(project: Project, **sections: object) -> str:
    params = project.write(**sections)
    prepare.main(params)
    embed.main(params, "tiny")
    return quality.main(params)


@pytest.fixture
def leaking(project: Project) -> Params:
    """Put a larger copy of a training image into test, with another label."""
    lines, first = ["path,label,split"], project.images[0]
    for path in project.images:
        split = "train" if int(path.stem) < 8 else "val" if int(path.stem) < 10 else "test"
        lines.append(f"{path.parent.name}/{path.name},{path.parent.name},{split}")
    with Image.open(first) as image:
        image.resize((48, 54)).save("data/raw/again.png")
    Path("data/raw/labels.csv").write_text("\n".join([*lines, "again.png,red,test"]))
    params = project.write(data={"source": "csv_file"}, split={"method": "predefined"})
    prepare.main(params)
    embed.main(params, "tiny")
    return params


def decided(decide: Callable[[dict[str, str]], str]) -> str:
    """Write a copy of the list with every line's decision."""
    with files.LIST.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with Path("decided.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, files.COLUMNS)
        writer.writeheader()
        writer.writerows({**row, "decision": decide(row)} for row in rows)
    return "decided.csv"


def test_a_set_with_nothing_wrong_says_so_but_for_its_size(project: Project) -> None:
    assert looked_at(project).startswith("36 images looked at")
    told = files.read()
    assert list(told) == list(CHECKS)
    assert {name for name, check in told.items() if check["images"]} <= {"tiny_class", "label_error", "outlier"}


def test_a_changed_copy_in_another_split_is_found_and_its_other_label_told(leaking: Params) -> None:
    said = quality.main(leaking)
    assert "2 near duplicate" in said
    near, conflict = (files.read()[name] for name in ("near_duplicate", "label_conflict"))
    pair = {"again.png", "blue/00.png"}
    assert {one["image_id"] for one in near["findings"]} == {one["image_id"] for one in conflict["findings"]} == pair
    assert near["across_splits"] == 1


def test_the_list_has_a_line_for_every_image_of_a_finding_and_room_to_decide(leaking: Params) -> None:
    quality.main(leaking)
    with files.LIST.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["finding"] == "near_duplicate"]
    table = manifest.read()
    for told in rows:
        row = table.row_of()[told["image_id"]]
        assert (told["path"], told["sha256"]) == (table.path[row], table.sha256[row])
        assert told["suggestion"] == checks.SETTLE  # for they have two labels
    assert {told["other"] for told in rows} == {"again.png", "blue/00.png"}
    assert [row["decision"] for row in rows] == ["", ""]


def test_with_fail_the_files_are_written_and_the_check_fails(project: Project, leaking: Params) -> None:
    params = project.write(data={"on_leak": "fail"})
    with pytest.raises(CheckFailed, match="data/raw/again.png: expected no image of another split this similar"):
        quality.main(params)
    assert files.read()["near_duplicate"]["images"] == 2


def test_what_is_decided_is_excluded_and_the_next_manifest_is_without_it(leaking: Params) -> None:
    quality.main(leaking)
    said = quality.main(leaking, apply=decided(lambda row: "exclude" if row["image_id"] == "again.png" else ""))
    assert (
        said
        == "1 images added to data/excluded.csv, 0 were in it already\ncommit data/excluded.csv and run `dvc repro`"
    )
    (reason,) = exclusions.read().values()
    assert reason.startswith("quality: near_duplicate of ")
    assert "blue" not in reason
    prepare.main(leaking)
    assert "again.png" not in manifest.read().image_id
    assert quality.main(leaking, apply="decided.csv").startswith("0 images added to data/excluded.csv, 1 were")


def test_a_class_that_would_be_left_empty_is_told(leaking: Params) -> None:
    table = manifest.read()
    named = zip(table.image_id, table.sha256, strict=True)
    others = [sha256 for name, sha256 in named if name.startswith("red/")]
    quality.main(leaking)
    exclusions.add(others, "old")
    said = quality.main(leaking, apply=decided(lambda row: "exclude" if row["image_id"] == "again.png" else ""))
    assert "warning: no image of class 'red' is left" in said


def test_an_unusable_list_excludes_nothing(leaking: Params) -> None:
    quality.main(leaking)
    with pytest.raises(InputError, match="did you mean 'exclude'"):
        quality.main(leaking, apply=decided(lambda row: "exlude"))
    with pytest.raises(InputError, match="none.csv: no such file"):
        quality.main(leaking, apply="none.csv")
    assert exclusions.read() == {}


@pytest.mark.processors
def test_the_same_data_give_the_same_bytes_and_no_image_is_decoded_twice(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at(project)
    before = [path.read_bytes() for path in (files.FINDINGS, files.LIST, files.STAMP)]
    monkeypatch.setattr(signatures, "of", None)
    quality.main(project.write())
    assert [path.read_bytes() for path in (files.FINDINGS, files.LIST, files.STAMP)] == before


def test_the_stamp_names_what_it_was_made_from(project: Project) -> None:
    looked_at(project)
    stamp = stamps.read(files.STAMP)
    assert (stamp.stage, set(stamp.outputs)) == ("quality", {"reports/quality.json", "reports/quality.csv"})
    assert stamp.inputs == stamps.hashes([manifest.MANIFEST, matrix.matrix_path("tiny")])


def test_findings_of_another_version_are_refused(project: Project) -> None:
    looked_at(project)
    files.FINDINGS.write_text(json.dumps({**json.loads(files.FINDINGS.read_text()), "schema_version": 0}))
    stamps.write(files.STAMP, stamps.Stamp("quality", stamps.hashes([files.FINDINGS]), {}))
    with pytest.raises(StateError, match="schema_version: got 0, expected 1"):
        files.read()


def test_images_that_cannot_be_decoded_are_left_out(project: Project) -> None:
    project.images[4].write_bytes(b"no image")
    assert looked_at(project, embed={"on_bad_image": "skip"}).startswith("35 images looked at")
