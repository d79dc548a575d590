"""What stands on both sides of a split."""

import pytest

from pipeline.core.errors import InputError
from pipeline.data.manifest import Manifest
from pipeline.quality import files, leaks
from pipeline.quality.checks import CHECKS
from pipeline.quality.findings import CheckResult, Finding
from tests.conftest import Project

IMAGES = ("a.png", "b.png", "c.png", "d.png")
SPLITS = ("train", "train", "val", "test")


def table(**columns: object) -> Manifest:
    defaults = {
        "image_id": IMAGES,
        "path": [f"raw/{name}" for name in IMAGES],
        "sha256": [letter * 64 for letter in "abcd"],
        "label": ["red"] * 4,
        "group": [None] * 4,
        "split": SPLITS,
    }
    return Manifest(**{**defaults, **columns})  # type: ignore[arg-type]


def near_duplicates(*pairs: tuple[int, int, float]) -> None:
    found = CheckResult([Finding(*rows, score) for one, two, score in pairs for rows in ((one, two), (two, one))])
    manifest = table()
    files.write(manifest, files.content(manifest, {"near_duplicate": found}, CHECKS), 4, {})


def found(project: Project, manifest: Manifest, **data: object) -> list[str]:
    params = project.write(data={"near_duplicate": 0.9, **data})
    return [str(finding) for finding in leaks.find(params, manifest)]


def test_a_manifest_without_leaks_has_none_even_before_the_quality_stage(project: Project) -> None:
    assert found(project, table()) == []


def test_the_same_bytes_in_two_splits_are_named_with_both(project: Project) -> None:
    (one,) = found(project, table(sha256=["a" * 64, "b" * 64, "c" * 64, "a" * 64]))
    assert one == "raw/d.png: expected one split for the same bytes, found 'test' here, 'train' for raw/a.png"


def test_the_same_bytes_with_two_labels_are_named_with_both(project: Project) -> None:
    (one,) = found(project, table(sha256=["a" * 64] * 2 + ["c" * 64, "d" * 64], label=["red", "blue", "red", "red"]))
    assert one == "raw/b.png: expected one label for the same bytes, found 'blue' here, 'red' for raw/a.png"


def test_of_the_same_bytes_the_image_of_the_later_split_is_the_leak_wherever_it_stands(project: Project) -> None:
    sha256, split = ["a" * 64, "a" * 64, "c" * 64, "d" * 64], ("test", "train", "val", "test")
    (one,) = found(project, table(sha256=sha256, split=split))
    assert one == "raw/a.png: expected one split for the same bytes, found 'test' here, 'train' for raw/b.png"


def test_copies_in_one_split_with_one_label_are_no_leak(project: Project) -> None:
    assert found(project, table(sha256=["a" * 64] * 2 + ["c" * 64, "d" * 64])) == []


def test_a_group_across_splits_is_reported_once(project: Project) -> None:
    (one,) = found(project, table(group=["p", "p", "q", "p"]))
    assert one.startswith("data/manifest.parquet: group 'p': expected one split")
    assert one.endswith("found 2 images in train, 1 images in test")


def test_near_duplicates_are_reported_once_at_the_later_split(project: Project) -> None:
    near_duplicates((3, 0, 0.97))
    (one,) = found(project, table())
    assert one == (
        "raw/d.png: expected no image of another split this similar (at least 0.9), "
        "found 0.97 to raw/a.png in 'train'; here 'test'"
    )


def test_near_duplicates_within_a_split_are_no_leak(project: Project) -> None:
    near_duplicates((0, 1, 0.99))
    assert found(project, table()) == []


@pytest.mark.parametrize(("least", "number"), [(0.97, 1), (0.98, 0)])
def test_the_threshold_is_a_setting(project: Project, least: float, number: int) -> None:
    near_duplicates((3, 0, 0.97))
    assert len(found(project, table(), near_duplicate=least)) == number


def test_copies_are_not_reported_again_as_near_duplicates(project: Project) -> None:
    near_duplicates((3, 0, 1.0))
    (one,) = found(project, table(sha256=["a" * 64, "b" * 64, "c" * 64, "a" * 64]))
    assert "same bytes" in one


def test_findings_that_are_outdated_or_altered_report_nothing(project: Project) -> None:
    near_duplicates((2, 1, 0.97))
    later = table(image_id=["a.png", "b.png", "new.png", "d.png"], split=["test", "train", "val", "test"])
    assert found(project, later) == []
    files.FINDINGS.write_bytes(b"x")
    assert found(project, table()) == []


def test_settings_out_of_range_are_refused(project: Project) -> None:
    for wrong in ({"near_duplicate": 0}, {"near_duplicate": 1.5}, {"on_leak": "ignore"}):
        with pytest.raises(InputError, match=f"params.yaml: data.{next(iter(wrong))}: got"):
            project.write(data={"on_leak": "warn", "near_duplicate": 0.5, **wrong})
