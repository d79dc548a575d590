"""What the checks of the data found, as far as it could change the answer: leaks, label conflicts, sizes of classes."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.core.errors import StateError
from pipeline.data.manifest import MANIFEST, Manifest
from pipeline.quality.files import Findings
from pipeline.verdict.schema import Verdict


def read(tested: Collection[str], table: Manifest, found: Findings) -> "DataChecks":
    """Relate the findings to the test images.

    Args:
        tested: ids of the test images that the runs were scored on.
        table: the manifest.
        found: as reports/quality.json has it.

    Raises:
        StateError: if the runs were made for another manifest.

    """
    rows = table.row_of()
    if unlisted := [image_id for image_id in tested if image_id not in rows]:
        raise StateError(f"{MANIFEST}: lacks {unlisted[0]!r}, a test image of the runs; run `dvc repro`")
    return DataChecks(table, frozenset(rows[image_id] for image_id in tested), found, rows)


@dataclass(frozen=True)
class DataChecks:
    """Findings by row of the manifest; those about images that the manifest no longer has are left out."""

    table: Manifest
    tested: frozenset[int]
    """Rows of the test images."""
    found: Findings
    rows: Mapping[str, int]
    """image_id -> row"""

    def pairs(self, check: str) -> set[frozenset[int]]:
        """Return the pairs of images that a check found."""
        findings = self.found[check]["findings"] if check in self.found else []
        named = ((self.rows.get(one["image_id"]), self.rows.get(one["other"])) for one in findings)
        return {frozenset((one, other)) for one, other in named if one is not None and other is not None}

    def tiny_classes(self) -> dict[str, int]:
        """Return the classes with too few images, and how many they have."""
        findings = self.found["tiny_class"]["findings"] if "tiny_class" in self.found else []
        rows = ((self.rows.get(one["image_id"]), one["score"]) for one in findings)
        return {self.table.label[row]: int(images) for row, images in rows if row is not None}

    @cached_property
    def copies(self) -> list[list[int]]:
        """Images with the same bytes in several splits, those of the same bytes together."""
        return self._spanning_splits(self.table.sha256)

    @cached_property
    def groups(self) -> list[list[int]]:
        """Images of each group that spans several splits."""
        return self._spanning_splits(self.table.group)

    @cached_property
    def alike(self) -> set[frozenset[int]]:
        """Pairs in different splits with different bytes and nearly the same pixels."""
        split, sha256 = self.table.split, self.table.sha256
        return {
            pair for pair in self.pairs("near_duplicate")
            if len({split[row] for row in pair}) == len({sha256[row] for row in pair}) == 2
        }  # fmt: skip

    def _spanning_splits(self, column: Sequence[str | None]) -> list[list[int]]:
        rows_of = defaultdict(list)
        for row, value in enumerate(column):
            if value is not None:
                rows_of[value].append(row)
        return [rows for rows in rows_of.values() if len({self.table.split[row] for row in rows}) > 1]

    def pairs_of_copies(self) -> int:
        """Count the pairs of images with the same bytes in different splits."""
        counts = [list(Counter(self.table.split[row] for row in rows).values()) for rows in self.copies]
        return sum((sum(one) ** 2 - sum(count**2 for count in one)) // 2 for one in counts)

    def affected(self, *kinds: Collection[Collection[int]]) -> int:
        """Count the test images that are in any of these pairs or groups."""
        return len(self.tested & {row for kind in kinds for rows in kind for row in rows})

    def numbers(self, verdict: Verdict) -> dict[str, float]:
        """Return the verdict's field `data`."""
        copies, alike, groups = self.copies, self.alike, self.groups
        images = verdict.test_images.values()
        return {
            "pairs_across_splits": self.pairs_of_copies() + len(alike),
            "groups_across_splits": len(groups),
            "test_images_touched": round(self.affected(copies, alike, groups) / len(self.tested), 6),
            "label_conflicts": len(self.pairs("label_conflict")),
            "smallest_class": min(Counter(self.table.label).values()),
            "largest_class_share": round(max(images) / sum(images), 6),
        }
