"""Decisions of a person become reasons, or one list of what is wrong with them."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import InputError, StateError
from pipeline.data.manifest import Manifest
from pipeline.quality import checks, decisions, files
from pipeline.quality.files import COLUMNS

NAMES = ["mary.png", "paul.png", "=1+1.png"]
SHA256 = [letter * 64 for letter in "abc"]
TABLE = Manifest(NAMES, NAMES, SHA256, ["red"] * 3, [None] * 3, ["train"] * 3)


def line(image: int, decision: str, finding: str = "near_duplicate", **cells: str) -> list[str]:
    row = dict.fromkeys(COLUMNS, "") | {
        "finding": finding, "image_id": NAMES[image], "sha256": SHA256[image], "other": NAMES[image - 1],
        "score": "0.98", "decision": decision,
    }  # fmt: skip
    return list({**row, **cells}.values())


def read(tmp_path: Path, *lines: list[str], columns: tuple[str, ...] = COLUMNS) -> dict[str, str]:
    path = tmp_path / "decided.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, *lines])
    return decisions.read(path, TABLE, frozenset({"d" * 64}))


def test_what_is_excluded_has_its_finding_as_the_reason_and_no_name_in_it(tmp_path: Path) -> None:
    found = read(tmp_path, line(1, "exclude"), line(1, "EXCLUDE ", "outlier", other=""), line(0, "keep"), line(2, ""))
    assert found == {SHA256[1]: "quality: near_duplicate of aaaaaaaaaa (0.98); quality: outlier (0.98)"}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (line(0, "exlude"), "decision: got 'exlude', expected one of: exclude, keep; did you mean 'exclude'?"),
        (line(0, "exclude", sha256="e" * 64), "sha256: got 'eeee"),
        (line(0, "exclude", "near_dup"), "finding: got 'near_dup'.*did you mean 'near_duplicate'?"),
        (line(0, "exclude", sha256=SHA256[1]), "sha256: got 'bbbb.*expected 'aaaa.*which is that of mary.png"),
        (line(0, "exclude", score="Mary Smith"), "score: got 'Mary Smith', expected a number"),
        (line(0, "exclude")[:-1], "got 9 cells, expected 10"),
    ],
)
def test_a_malformed_line_is_reported_with_its_number(tmp_path: Path, wrong: list[str], told: str) -> None:
    with pytest.raises(InputError, match=f"decided.csv:3: {told}") as caught:
        read(tmp_path, line(1, "exclude"), wrong)
    assert "nothing was excluded" in str(caught.value)


def test_all_malformed_lines_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, *(line(0, "perhaps") for _ in range(3)), line(1, "exclude", "none"))
    assert len(caught.value.problems) == 5


def test_altered_columns_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"decided.csv:1: columns: got .*expected \['finding'"):
        read(tmp_path, line(0, "exclude"), columns=(*COLUMNS[:-1], "verdict"))


def test_an_image_both_kept_and_excluded_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="decided.csv:3: decision: got 'keep', but 'exclude' for the same .* line 2"):
        read(tmp_path, line(0, "exclude"), line(0, "keep", "outlier"))


def test_an_image_that_is_excluded_already_may_be_decided_on_again(tmp_path: Path) -> None:
    assert read(tmp_path, line(0, "exclude", sha256="d" * 64)) == {
        "d" * 64: "quality: near_duplicate of cccccccccc (0.98)"
    }


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["exclude", "keep", ""])), max_size=8))
def test_exactly_the_images_decided_on_are_excluded(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[int, str]]
) -> None:
    folder = tmp_path_factory.mktemp("decided")
    excluded, kept = ({image for image, decision in said if decision == one} for one in ("exclude", "keep"))
    if excluded & kept:
        with pytest.raises(InputError):
            read(folder, *(line(*one) for one in said))
    else:
        assert set(read(folder, *(line(*one) for one in said))) == {SHA256[image] for image in excluded}


NUMBERED = [f"{number:02}" for number in range(12)]
COPIES = Manifest(
    NUMBERED, NUMBERED, [number * 32 for number in NUMBERED], ["red", "red", "blue"] * 4, [None] * 12,
    ["train"] * 5 + ["val"] * 3 + ["test"] * 4,
)  # fmt: skip
PAIRS = st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11)).filter(lambda pair: pair[0] < pair[1]), max_size=30)


def near_duplicates(pairs: set[tuple[int, int]]) -> Any:
    material: Any = SimpleNamespace(table=COPIES, near_duplicates=[(*pair, 0.98) for pair in sorted(pairs)])
    material.near_duplicate = 0.96
    return files.content(COPIES, {"near_duplicate": checks.near_duplicate(material)}, checks.CHECKS)


@given(PAIRS)
def test_after_the_suggested_exclusions_no_two_near_duplicates_share_a_label(pairs: set[tuple[int, int]]) -> None:
    gone = decisions.suggested(COPIES, near_duplicates(pairs))
    left = [pair for pair in pairs if not any(COPIES.sha256[row] in gone for row in pair)]
    conflicting = {row for pair in pairs if len({COPIES.label[row] for row in pair}) == 2 for row in pair}
    assert all(conflicting.intersection(pair) for pair in left)


def test_a_suggested_exclusion_has_its_reason_and_never_bytes_that_another_line_keeps() -> None:
    found = near_duplicates({(0, 9), (1, 4)})
    assert decisions.suggested(COPIES, found) == {
        "00" * 32: "quality: near_duplicate of 0909090909 (0.98)",
        "04" * 32: "quality: near_duplicate of 0101010101 (0.98)",
    }
    found["near_duplicate"]["findings"] += [{**found["near_duplicate"]["findings"][0], "suggestion": "keep"}]
    assert list(decisions.suggested(COPIES, found)) == ["04" * 32]


def test_suggestions_of_another_manifest_are_refused() -> None:
    with pytest.raises(StateError, match="of another manifest; run `dvc repro`"):
        decisions.suggested(TABLE, near_duplicates({(0, 9)}))
