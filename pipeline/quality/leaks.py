"""Leaks: images in two splits, and images whose labels contradict each other."""

from collections.abc import Iterator, Sequence

from pipeline.core.mismatches import Mismatch
from pipeline.core.params import Params
from pipeline.data.manifest import MANIFEST, SPLITS, Manifest, rows_of
from pipeline.quality import files


def find(params: Params, table: Manifest) -> list[Mismatch]:
    """Return the same bytes in two splits or with two labels, groups and near-duplicates across splits, sorted.

    Near-duplicates are those that the stage `quality` found. Missing or altered findings count as none here; the check
    of the chain reports them.
    """
    return sorted({*_copies(table), *_groups(table), *_near_duplicates(params, table)})


def _copies(table: Manifest) -> Iterator[Mismatch]:
    """Compare every image with the first one with the same bytes, in the order of the splits."""
    for rows in _together(table, table.sha256):
        first = rows[0]
        for row in rows[1:]:
            here, other = table.path[row], table.path[first]
            if table.split[row] != table.split[first]:
                found = f"{table.split[row]!r} here, {table.split[first]!r} for {other}"
                yield Mismatch(here, "one split for the same bytes", found)
            if table.label[row] != table.label[first]:
                found = f"{table.label[row]!r} here, {table.label[first]!r} for {other}"
                yield Mismatch(here, "one label for the same bytes", found)


def _groups(table: Manifest) -> Iterator[Mismatch]:
    for rows in _together(table, table.group):
        images = {split: sum(table.split[row] == split for row in rows) for split in SPLITS}
        if sum(map(bool, images.values())) > 1:
            found = ", ".join(f"{count} images in {split}" for split, count in images.items() if count)
            yield Mismatch(MANIFEST.as_posix(), "one split for a group", found, f"group {table.group[rows[0]]!r}")


def _together(table: Manifest, column: Sequence[str | None]) -> Iterator[list[int]]:
    """Yield the rows that share a value, in the order of the splits."""
    for rows in rows_of(column).values():
        if len(rows) > 1:
            yield sorted(rows, key=lambda row: (SPLITS.index(table.split[row]), row))


def _near_duplicates(params: Params, table: Manifest) -> Iterator[Mismatch]:
    """Yield each pair once, at the image of the later split."""
    least = params.data.near_duplicate
    for one, two, score in files.pairs_across_splits(table, least):
        first, second = sorted((one, two), key=lambda row: SPLITS.index(table.split[row]))
        found = f"{score:.2f} to {table.path[first]} in {table.split[first]!r}; here {table.split[second]!r}"
        yield Mismatch(table.path[second], f"no image of another split this similar (at least {least:g})", found)
