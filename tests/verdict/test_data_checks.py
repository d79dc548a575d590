"""Notes from the data checks beside the answer, with the share of test images affected and the command to run."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.data.manifest import Manifest
from pipeline.evaluation.comparison import Estimate
from pipeline.quality import files
from pipeline.quality.checks import CHECKS
from pipeline.quality.findings import CheckResult, Finding
from pipeline.verdict import judge
from pipeline.verdict.schema import Verdict
from pipeline.verdict.wording.answer import headline, terminal_lines
from tests.report.examples import evidence

SPLITS = ["train"] * 10 + ["val"] * 4 + ["test"] * 10
TRAIN, VAL, TEST = 0, 10, 14
"""The first row of each split."""


def table(**columns: Sequence[Any]) -> Manifest:
    names = [f"{row:02}.png" for row in range(len(SPLITS))]
    plain = {"image_id": names, "path": names, "sha256": [f"{row:064x}" for row in range(len(SPLITS))],
             "label": ["a", "b"] * 12, "group": [None] * 24, "split": SPLITS}  # fmt: skip
    return Manifest(**{**plain, **columns})  # type: ignore[arg-type]


def changed(column: Sequence[Any], **rows: Sequence[int]) -> list[Any]:
    """Give some rows of a column another value."""
    values = list(column)
    for value, at in rows.items():
        for row in at:
            values[row] = value
    return values


def judged(given: Manifest, verdict: Verdict | None = None, **found: Sequence[Finding]) -> Verdict:
    every = files.content(given, {name: CheckResult(found.get(name, [])) for name in CHECKS}, CHECKS)
    tested = [name for name, split in zip(given.image_id, given.split, strict=True) if split == "test"]
    return judge.add_data_checks(verdict or evidence().verdict, tested, given, every)


def pair(one: int, other: int) -> list[Finding]:
    return [Finding(one, other, 0.99, "keep"), Finding(other, one, 0.99, "exclude: a copy in 'test' is kept")]


def test_checks_without_findings_give_no_notes() -> None:
    found = judged(table())
    assert found.notes == []
    assert found.data == {
        "pairs_across_splits": 0, "groups_across_splits": 0, "test_images_touched": 0, "label_conflicts": 0,
        "smallest_class": 12, "largest_class_share": 0.5,
    }  # fmt: skip


def test_near_duplicates_across_splits_are_counted_once_with_the_test_images_affected() -> None:
    within, leaking = pair(TEST, TEST + 1), [*pair(TEST, TRAIN), *pair(TEST, VAL), *pair(VAL + 1, TRAIN)]
    found = judged(table(), near_duplicate=[*within, *leaking])
    assert found.notes == [
        "3 pairs of images with nearly the same pixels are in different splits and affect 10% of the test images "
        "(1 of 10): `headswap quality --exclude-copies && dvc repro` excludes one of each pair whose labels agree."
    ]
    assert (found.data["pairs_across_splits"], found.data["test_images_touched"]) == (3, 0.1)


def test_the_same_bytes_in_three_splits_count_as_every_pair_across_them() -> None:
    same = {"f" * 64: [TRAIN, TRAIN + 1, VAL, TEST]}
    found = judged(table(sha256=changed(table().sha256, **same)))
    assert found.notes == [
        "5 pairs of images with the same bytes are in different splits and affect 10% of the test images (1 of 10): "
        "`dvc exp run -S split.method=hash` makes splits that keep them together."
    ]


def test_a_group_across_splits_affects_all_its_test_images_and_two_kinds_of_leaks_are_summed_up() -> None:
    group = changed([f"g{row}" for row in range(24)], ann=[TRAIN, TEST, TEST + 1], bob=[TRAIN + 1, TRAIN + 2])
    found = judged(table(group=group), near_duplicate=pair(TEST + 1, VAL))
    assert found.notes[0] == (
        "In all, 20% of the test images (2 of 10) share bytes, pixels or a group with images of another split."
    )
    assert found.notes[2].startswith(
        "1 group spans several splits and affects 20% of the test images (2 of 10): `dvc exp run -S "
    )
    assert found.data["groups_across_splits"] == 1
    assert found.data["test_images_touched"] == 0.2


@pytest.mark.parametrize(("others", "method"), [("own", "grouped"), (None, "hash")])
def test_the_suggested_split_for_groups_accepts_images_without_a_group(others: str | None, method: str) -> None:
    group = changed([others and f"{others}{row}" for row in range(24)], ann=[TRAIN, TEST])
    assert f"-S split.method={method}`" in judged(table(group=group)).notes[0]


def test_label_conflicts_and_tiny_classes_are_noted_with_their_numbers() -> None:
    label = changed(table().label, rare=[TRAIN, TRAIN + 2])
    tiny = [Finding(row, None, 2, "label more") for row in (TRAIN, TRAIN + 2)]
    found = judged(table(label=label), label_conflict=pair(TEST, TRAIN + 1), tiny_class=tiny)
    conflict, rare = found.notes
    assert conflict.startswith(
        "1 pair of images shows the same picture under two labels and affects 10% of the test images (1 of 10): "
    )
    assert "`headswap quality --apply COPY && dvc repro`" in conflict
    assert rare.startswith("1 class has too few images to train on or to test: 'rare' (2). ")
    assert (found.data["label_conflicts"], found.data["smallest_class"]) == (1, 2)


def test_notes_on_the_data_come_before_notes_on_runs() -> None:
    verdict = dataclasses.replace(evidence().verdict, notes=["of a run"])
    found = judged(table(), verdict, near_duplicate=pair(TEST, TRAIN))
    assert len(found.notes) == 2
    assert found.notes[-1] == "of a run"


def test_findings_about_removed_images_are_ignored() -> None:
    given = table()
    found = files.content(given, {name: CheckResult([]) for name in CHECKS}, CHECKS)
    gone = {"image_id": "gone.png", "other": given.image_id[TEST], "score": 0.99, "row": 99, "suggestion": "keep"}
    found["near_duplicate"]["findings"] = found["label_conflict"]["findings"] = found["tiny_class"]["findings"] = [gone]
    assert judge.add_data_checks(evidence().verdict, given.image_id[TEST:], given, found).notes == []


def unequal(**test: float) -> Verdict:
    """Make a verdict on 82 images of one class and 18 of another, for a head that mostly predicts the larger class."""
    verdict = evidence(titles=("logreg",)).verdict
    reached = {name: Estimate(value, value, value) for name, value in test.items()}
    results = [dataclasses.replace(one, test={**one.test, **reached}) for one in verdict.results]
    return dataclasses.replace(verdict, test_images={"a": 82, "b": 18}, results=results)


def test_where_classes_are_unequal_the_headline_has_both_accuracies() -> None:
    verdict = unequal(accuracy=0.819, balanced_accuracy=0.51)
    assert headline(verdict) == "81.9% accuracy, 51.0% balanced accuracy, with frozen features"
    (note,) = judged(table(), verdict).notes
    assert note.startswith(
        "The classes are unequal: 'a' has 82% of the test images and 'b' 18%, so always predicting 'a' would reach 82% "
        "accuracy. `dvc exp run -S selection.metric=balanced_accuracy` makes "
    )


@pytest.mark.parametrize(
    ("counts", "is_unequal"),
    [((73, 27), False), ((76, 24), True), ((20, 20, 20), False), ((24, 24, 4), True), ((40, 0), True), ((9,), False)],
)
def test_classes_are_unequal_from_half_as_much_again_or_less_than_half_of_an_equal_share(
    counts: tuple[int, ...], is_unequal: bool
) -> None:
    images = {f"c{number}": count for number, count in enumerate(counts)}
    verdict = dataclasses.replace(evidence().verdict, test_images=images)
    assert verdict.unequal is is_unequal
    assert (verdict.balanced(verdict.results[0]) is not None) is is_unequal


def test_a_choice_by_balanced_accuracy_needs_no_second_number() -> None:
    verdict = dataclasses.replace(unequal(), metric="balanced_accuracy")
    assert verdict.balanced(verdict.results[0]) is None
    assert judged(table(), verdict).notes == []


def test_in_the_terminal_every_note_has_a_line_without_control_characters() -> None:
    assert terminal_lines("Keep.", [], "there") == "Keep. See there"
    lines = terminal_lines("Keep.", [f"note\x1b[2J {number}" for number in range(7)], "there").splitlines()
    assert lines[0] == "Keep. See there"
    assert lines[1] == "note: note\\x1b[2J 0"
    assert lines[-1] == "note: ... 7 notes in all"
