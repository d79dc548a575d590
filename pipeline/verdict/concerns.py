"""What the checks know of the data and could change the answer: notes that stand beside it, and their numbers."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pipeline.core.errors import StateError, first_five
from pipeline.core.printable import printable
from pipeline.data.manifest import MANIFEST, Manifest
from pipeline.quality.files import LIST, Findings
from pipeline.verdict.schema import Verdict

NAMED = 5
"""Tiny classes that a note names."""


def beside(verdict: Verdict, tested: Collection[str], table: Manifest, found: Findings) -> Verdict:
    """Put what is known of the data beside the answer: its notes before all others, and its numbers.

    Args:
        verdict: of the runs.
        tested: the ids of the test images that they were scored on.
        table: the manifest.
        found: as reports/quality.json has it.

    Raises:
        StateError: if the runs were made for another manifest.

    """
    rows = table.row_of()
    if strange := [image_id for image_id in tested if image_id not in rows]:
        raise StateError(f"{MANIFEST}: lacks {strange[0]!r}, a test image of the runs; run `dvc repro`")
    data = _Data(table, frozenset(rows[image_id] for image_id in tested), found, rows)
    notes = [*_of_leaks(data), *_of_conflicts(data), *_of_tiny_classes(data), *_of_unequal_classes(verdict)]
    return replace(verdict, notes=[*notes, *verdict.notes], data=_numbers(data, verdict))


def summary(sentence: str, notes: Sequence[str], where: object) -> str:
    """Return the answer for a terminal: a line, and one for each of the first notes."""
    lines = [f"{sentence} See {where}", *(f"note: {note}" for note in first_five(notes, "notes"))]
    return "\n".join(map(printable, lines))


@dataclass(frozen=True)
class _Data:
    table: Manifest
    tested: frozenset[int]
    """Rows of the manifest, as everywhere here."""
    found: Findings
    rows: dict[str, int]

    def pairs(self, check: str) -> set[frozenset[int]]:
        """Return the pairs that a check found; what the manifest does not know any more is no pair."""
        findings = self.found[check]["findings"] if check in self.found else []
        named = ((self.rows.get(one["image_id"]), self.rows.get(one["other"])) for one in findings)
        return {frozenset((one, other)) for one, other in named if one is not None and other is not None}

    @cached_property
    def copies(self) -> list[list[int]]:
        """The images with the same bytes that stand in several splits, together."""
        return self._across(self.table.sha256)

    @cached_property
    def groups(self) -> list[list[int]]:
        """The images of each group that stands in several splits."""
        return self._across(self.table.group)

    @cached_property
    def alike(self) -> set[frozenset[int]]:
        """The pairs across splits with other bytes and nearly the same pixels."""
        split, sha256 = self.table.split, self.table.sha256
        return {
            pair for pair in self.pairs("near_duplicate")
            if len({split[row] for row in pair}) == len({sha256[row] for row in pair}) == 2
        }  # fmt: skip

    def _across(self, column: Sequence[str | None]) -> list[list[int]]:
        rows_of = defaultdict(list)
        for row, value in enumerate(column):
            if value is not None:
                rows_of[value].append(row)
        return [rows for rows in rows_of.values() if len({self.table.split[row] for row in rows}) > 1]

    def pairs_of_copies(self) -> int:
        """Return in how many ways two of the same bytes stand in different splits."""
        counts = [list(Counter(self.table.split[row] for row in rows).values()) for rows in self.copies]
        return sum((sum(one) ** 2 - sum(count**2 for count in one)) // 2 for one in counts)

    def touched(self, *kinds: Collection[Collection[int]]) -> int:
        """Return how many test images are in one of these."""
        return len(self.tested & {row for kind in kinds for rows in kind for row in rows})

    def touching(self, count: int, what: str, which: str, rows: Collection[Collection[int]]) -> str:
        """Say how many of something there are, and of how many test images."""
        verb = "touches" if count == 1 else "touch"
        return f"{_many(count, what)} {which} {verb} {self.share(self.touched(rows))}"

    def share(self, touched: int) -> str:
        """Word a number of test images."""
        all_of_them = len(self.tested)
        return f"{_percent(touched / all_of_them)} of the test images ({touched:,} of {all_of_them:,})"


def _of_leaks(data: _Data) -> Iterator[str]:
    copies, alike, groups = data.copies, data.alike, data.groups
    if sum(map(bool, (copies, alike, groups))) > 1:
        share = data.share(data.touched(copies, alike, groups))
        yield f"In all, {share} share bytes, pixels or a group with images of another split."
    method = "grouped" if all(data.table.group) else "hash"  # grouped refuses an image without a group
    if copies:
        touching = data.touching(data.pairs_of_copies(), "pair", "with the same bytes across splits", copies)
        yield f"{touching}: `dvc exp run -S split.method={method}` draws splits that keep them together."
    if alike:
        touching = data.touching(len(alike), "pair", "with nearly the same pixels across splits", alike)
        yield f"{touching}: `headswap quality --exclude-copies && dvc repro` leaves out one of each whose labels agree."
    if groups:
        touching = data.touching(len(groups), "group", "across splits", groups)
        yield f"{touching}: `dvc exp run -S split.method={method}` draws splits that keep groups whole."


def _of_conflicts(data: _Data) -> Iterator[str]:
    if pairs := data.pairs("label_conflict"):
        yield (
            f"{data.touching(len(pairs), 'pair', 'with two labels for one picture', pairs)}: "
            "settle which label is right where your labels are, or write `exclude` beside them in a copy of "
            f"{LIST} and run `headswap quality --apply COPY && dvc repro`."
        )


def _of_tiny_classes(data: _Data) -> Iterator[str]:
    findings = data.found["tiny_class"]["findings"] if "tiny_class" in data.found else []
    images = {data.table.label[row]: int(one["score"]) for one in findings
              if (row := data.rows.get(one["image_id"])) is not None}  # fmt: skip
    if images:
        named = [f"{name!r} ({count})" for name, count in list(images.items())[:NAMED]]
        rest = [f"{len(images) - NAMED} more"] if len(images) > NAMED else []
        yield (
            f"{_many(len(images), 'class', 'classes')} with too few images to learn from or to test: "
            f"{', '.join([*named, *rest])}. Label more of them, merge them, or leave them out with "
            "`headswap quality --apply`."
        )


def _of_unequal_classes(verdict: Verdict) -> Iterator[str]:
    if not verdict.unequal or verdict.metric != "accuracy":
        return
    ordered = sorted(verdict.test_images.items(), key=lambda one: (-one[1], one[0]))
    (largest, most), (smallest, least) = ordered[0], ordered[-1]
    images = sum(verdict.test_images.values())
    yield (
        f"The classes are unequal: {largest!r} has {_percent(most / images)} of the test images, {smallest!r} "
        f"{_percent(least / images)}, and to name {largest!r} always would reach that accuracy. "
        "`dvc exp run -S selection.metric=balanced_accuracy` makes every choice by balanced accuracy."
    )


def _numbers(data: _Data, verdict: Verdict) -> dict[str, float]:
    copies, alike, groups = data.copies, data.alike, data.groups
    images = verdict.test_images.values()
    return {
        "pairs_across_splits": data.pairs_of_copies() + len(alike),
        "groups_across_splits": len(groups),
        "test_images_touched": round(data.touched(copies, alike, groups) / len(data.tested), 6),
        "label_conflicts": len(data.pairs("label_conflict")),
        "smallest_class": min(Counter(data.table.label).values()),
        "largest_class_share": round(max(images) / sum(images), 6),
    }


def _percent(share: float) -> str:
    return f"{100 * share:.{0 if share >= 0.1 or share == 0 else 1}f}%"


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count:,} {one if count == 1 else more or one + 's'}"
