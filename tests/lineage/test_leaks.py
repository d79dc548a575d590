"""What stands on both sides of a split."""

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.evaluation import surveys
from pipeline.evaluation.surveys import Survey
from pipeline.evaluation.transferability import Transferability
from pipeline.evaluation.twins import Twins
from pipeline.lineage.auditing import leaks
from pipeline.manifest import Manifest
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


def survey(backbone: str, row: list[int], similarity: list[float]) -> None:
    scores = Transferability(2, 2, 0.0, 0.0, 0.0, 1, 0.5)
    twins = Twins(np.array(row), np.array(similarity), 2, 2)
    surveys.write(backbone, Survey(IMAGES, np.zeros((4, 2)), scores, twins), {})


def found(project: Project, manifest: Manifest, **data: object) -> list[str]:
    params = project.write(data=data, run={"backbones": ["tiny", "other"]}, backbones={"other": {}})
    return [str(finding) for finding in leaks.find(params, manifest)]


def test_a_manifest_without_leaks_and_without_surveys_has_none(project: Project) -> None:
    assert found(project, table()) == []


def test_the_same_bytes_in_two_splits_are_named_with_both(project: Project) -> None:
    (one,) = found(project, table(sha256=["a" * 64, "b" * 64, "c" * 64, "a" * 64]))
    assert one == "raw/d.png: expected one split for the same bytes, found 'test' here, 'train' for raw/a.png"


def test_the_same_bytes_with_two_labels_are_named_with_both(project: Project) -> None:
    (one,) = found(project, table(sha256=["a" * 64] * 2 + ["c" * 64, "d" * 64], label=["red", "blue", "red", "red"]))
    assert one == "raw/b.png: expected one label for the same bytes, found 'blue' here, 'red' for raw/a.png"


def test_copies_in_one_split_with_one_label_are_no_leak(project: Project) -> None:
    assert found(project, table(sha256=["a" * 64] * 2 + ["c" * 64, "d" * 64])) == []


def test_a_group_across_splits_is_told_once(project: Project) -> None:
    (one,) = found(project, table(group=["p", "p", "q", "p"]))
    assert one.startswith("data/manifest.parquet: group 'p': expected one split")
    assert one.endswith("found 2 images in train, 1 images in test")


def test_near_duplicates_are_told_once_at_the_later_split(project: Project) -> None:
    survey("tiny", [3, 2, 1, 0], [0.9, 0.2, 0.2, 0.9])
    (one,) = found(project, table())
    assert one == (
        "raw/d.png: expected no image of another split this similar (at least 0.55 by tiny), "
        "found 0.90 to raw/a.png in 'train'; here 'test'"
    )


def test_of_several_backbones_the_one_that_finds_them_most_similar_is_named(project: Project) -> None:
    survey("tiny", [3, -1, -1, 0], [0.7, 0, 0, 0.7])
    survey("other", [-1, 3, -1, 0], [0, 0.6, 0, 0.95])
    one, other = found(project, table())
    assert "0.60 to raw/b.png" in one
    assert "at least 0.55 by other), found 0.95 to raw/a.png" in other


@pytest.mark.parametrize(("least", "number"), [(0.9, 1), (0.91, 0)])
def test_the_threshold_is_a_setting(project: Project, least: float, number: int) -> None:
    survey("tiny", [3, -1, -1, 0], [0.9, 0, 0, 0.9])
    assert len(found(project, table(), near_duplicate=least)) == number


def test_copies_are_not_told_again_as_near_duplicates(project: Project) -> None:
    survey("tiny", [3, -1, -1, 0], [1.0, 0, 0, 1.0])
    (one,) = found(project, table(sha256=["a" * 64, "b" * 64, "c" * 64, "a" * 64]))
    assert "same bytes" in one


def test_a_survey_of_an_older_manifest_or_with_other_bytes_tells_nothing_wrong(project: Project) -> None:
    survey("tiny", [3, 2, 1, 0], [0.9, 0.9, 0.9, 0.9])
    later = table(image_id=["a.png", "b.png", "new.png", "d.png"], split=["test", "train", "val", "test"])
    assert found(project, later) == []
    surveys.path_of("tiny").write_bytes(b"x")
    assert found(project, table()) == []


def test_settings_out_of_range_are_refused(project: Project) -> None:
    for wrong in ({"near_duplicate": 0}, {"near_duplicate": 1.5}, {"on_leak": "ignore"}):
        with pytest.raises(InputError, match=f"params.yaml: data.{next(iter(wrong))}: got"):
            project.write(data={"on_leak": "warn", "near_duplicate": 0.5, **wrong})
