"""What every check of the registry keeps to, and what each one finds."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pipeline.data.manifest import Manifest
from pipeline.quality import checks, files
from pipeline.quality.checks import CHECKS
from pipeline.quality.findings import CheckResult, Finding, Material
from pipeline.quality.signatures import parts
from tests.quality.examples import cloud, encoded, material
from tests.quality.examples import parts as signed


def found(name: str, given: Material) -> list[Finding]:
    return list(CHECKS[name].run(given).findings)


def with_picture(given: Material, row: int, content: bytes) -> Material:
    """Give an image other pixels."""
    columns = [column.copy() for column in given.signatures]
    for column, value in zip(columns, signed(content), strict=True):
        column[row] = value[0]
    return replace(given, signatures=type(given.signatures)(*columns))


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_finds_nothing_where_nothing_is_wrong(name: str) -> None:
    assert found(name, material()) == []


FAULTS: dict[str, Callable[[], Material]] = {
    "duplicate": lambda: material(sha256=[f"{max(1, number):064x}" for number in range(60)]),
    "near_duplicate": lambda: with_picture(material(), 7, encoded(cloud(20, 64).resize((90, 90)), "JPEG")),
    "label_conflict": lambda: with_picture(material(), 7, encoded(cloud(20, 64).resize((90, 90)), "JPEG")),
    "label_error": lambda: material(label=["class 2", *(f"class {number % 3}" for number in range(1, 60))]),
    "outlier": lambda: replace(material(), features=np.concatenate([material().features[:-1], -np.ones((1, 8))])),
    "blank": lambda: with_picture(material(), 9, encoded(cloud(9).point(lambda _: 77))),
    "tiny_class": lambda: material(label=["rare", *(f"class {number % 3}" for number in range(1, 60))]),
}


def test_every_check_has_a_fault_to_find() -> None:
    assert FAULTS.keys() == CHECKS.keys()


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_finds_its_fault_the_same_way_twice_and_within_the_manifest(name: str) -> None:
    first, again = (CHECKS[name].run(FAULTS[name]()) for _ in range(2))
    assert first == again
    assert first.findings
    assert isinstance(first, CheckResult)
    for finding in first.findings:
        assert finding.row in range(60)
        assert finding.other is None or finding.other != finding.row
        assert finding.score is not None
        assert finding.suggestion


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_few_images_do_not_fail(name: str, n: int) -> None:
    CHECKS[name].run(material(n, classes=min(n, 2)))


@pytest.mark.parametrize("name", CHECKS)
def test_equal_images_do_not_fail(name: str) -> None:
    given = material(40, classes=2)
    pixels = parts(np.full((40, 4225), 9, np.uint8))
    CHECKS[name].run(replace(given, features=np.ones((40, 8)), signatures=pixels))


def test_copies_are_listed_with_each_other() -> None:
    rows = {(one.row, one.other) for one in found("duplicate", FAULTS["duplicate"]())}
    assert rows == {(0, 1), (1, 0)}


def test_of_a_pair_across_splits_the_training_image_is_suggested_for_exclusion() -> None:
    table = Manifest(["a", "b"], ["a", "b"], ["a", "b"], ["cat"] * 2, [None] * 2, ["train", "test"])
    assert checks._suggestions(table, [(0, 1, 0.99)]) == {0: "exclude: a copy in 'test' is kept", 1: "keep"}


def test_in_a_chain_of_copies_an_image_is_excluded_only_for_one_that_is_kept() -> None:
    names = [f"{number}.png" for number in range(4)]
    table = Manifest(names, names, ["a"] * 4, ["cat"] * 4, [None] * 4, ["train", "test", "train", "train"])
    suggested = checks._suggestions(table, [(0, 1, 0.99), (0, 2, 0.98), (2, 3, 0.97)])
    assert suggested == {
        0: "exclude: a copy in 'test' is kept",
        1: "keep",
        2: "keep",
        3: "exclude: a copy is kept",
    }


def test_of_images_with_two_labels_the_label_must_be_decided_first() -> None:
    table = Manifest(["a", "b"], ["a", "b"], ["a", "b"], ["cat", "dog"], [None] * 2, ["train", "test"])
    assert set(checks._suggestions(table, [(0, 1, 0.99)]).values()) == {checks.SETTLE}


def test_exact_copies_are_not_near_duplicates() -> None:
    given = with_picture(
        material(sha256=[f"{7 if row == 20 else row:064x}" for row in range(60)]), 7, encoded(cloud(20, 64))
    )
    assert found("near_duplicate", given) == []


def test_a_wrong_label_is_named_with_the_likely_one() -> None:
    (one,) = found("label_error", FAULTS["label_error"]())
    assert (one.row, one.suggestion) == (0, "is it 'class 0'?")
    assert one.score is not None
    assert one.score < 0.1


def test_what_was_found_says_which_pairs_cross_splits() -> None:
    split = ["train"] * 60
    split[1] = "test"
    given = material(sha256=[f"{max(1, number):064x}" for number in range(60)], split=split)
    told = files.content(given.table, {"duplicate": CHECKS["duplicate"].run(given)}, CHECKS)["duplicate"]
    assert (told["images"], told["across_splits"]) == (2, 1)
    assert [(one["image_id"], one["other"]) for one in told["findings"]] == [
        ("000.png", "001.png"),
        ("001.png", "000.png"),
    ]
