"""Split records into train, validation and test."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from pipeline.core.errors import InputError, first_five, unknown
from pipeline.core.sections import Split
from pipeline.data.manifest import SPLITS, Manifest, Record

Method = Callable[[Sequence[Record], Sequence[str], Split, int], list[str]]


def assign(records: Sequence[Record], contents: Sequence[str], settings: Split, seed: int) -> list[str]:
    """Return one of "train", "val", "test" for every record.

    Args:
        records: N records.
        contents: the sha256 of each record's bytes, (N,).
        settings: the method and the fractions.
        seed: of the split.

    Raises:
        InputError: if a class is missing from a split, or the data cannot be split by that method.

    """
    splits = METHODS[settings.method](records, contents, settings, seed)
    labels = [record.label for record in records]
    _require_every_class(labels, splits, set(labels), "add images, or change split.method or its fractions")
    return splits


def position(seed: int, unit: str) -> float:
    """Return u in [0, 1): the first 8 bytes of sha256(seed, unit) over 2^64. It does not depend on other images."""
    digest = hashlib.sha256(f"{seed}:{unit}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def merged(records: Sequence[Record], contents: Sequence[str], settings: Split) -> int:
    """Return how many groups share an image's bytes with one of a smaller name, and so follow its split."""
    if settings.method == "predefined":
        return 0
    pairs = zip(records, _units(records, contents), strict=True)
    return len({record.group for record, unit in pairs if record.group and record.group != unit})


def _units(records: Sequence[Record], contents: Sequence[str]) -> list[str]:
    """Return the unit that each record belongs to, which stays together: its group, or else its content.

    Groups that share an image's bytes are one unit, under the smallest of their names, and copies without a group
    belong to it, too: so duplicates never get into two splits.
    """
    if not any(record.group for record in records):
        return list(contents)
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = name = parent[above]
        return name

    group_of: dict[str, str] = {}
    for record, content in zip(records, contents, strict=True):
        if record.group:
            one, other = sorted((root(record.group), root(group_of.setdefault(content, record.group))))
            parent[other] = one
    return [
        root(group) if (group := record.group or group_of.get(content)) else content
        for record, content in zip(records, contents, strict=True)
    ]


def _by_hash(records: Sequence[Record], contents: Sequence[str], settings: Split, seed: int) -> list[str]:
    """Split by hash, without state: fractions hold on average.

    Adding an image moves an old one only if both have the same bytes and different groups.
    """

    def split_of(u: float) -> str:
        if u < settings.test:
            return "test"
        return "val" if u < settings.test + settings.val else "train"

    units = _units(records, contents)
    of_unit = {unit: split_of(position(seed, unit)) for unit in set(units)}
    return [of_unit[unit] for unit in units]


def _grouped(records: Sequence[Record], contents: Sequence[str], settings: Split, seed: int) -> list[str]:
    """Split groups by hash; every image must have one."""
    if without := [
        f"{record.path}: no group, which split.method: grouped needs" for record in records if not record.group
    ]:
        raise InputError(*first_five(without, "images"))
    return _by_hash(records, contents, settings, seed)


def _stratified(records: Sequence[Record], contents: Sequence[str], settings: Split, seed: int) -> list[str]:
    """Split with exact fractions in every (label, stratum); adding images may move old ones."""
    units = _units(records, contents)
    strata: dict[tuple[str, str], set[str]] = defaultdict(set)
    seen: set[str] = set()
    for record, unit in zip(records, units, strict=True):
        if unit not in seen:
            seen.add(unit)
            strata[record.label, record.stratum or ""].add(unit)
    split_of: dict[str, str] = {}
    for members in strata.values():
        ordered = sorted(members, key=lambda unit: (position(seed, unit), unit))
        test = round(len(ordered) * settings.test)
        val = round(len(ordered) * settings.val)
        for rank, unit in enumerate(ordered):
            split_of[unit] = "test" if rank < test else "val" if rank < test + val else "train"
    return [split_of[unit] for unit in units]


def _predefined(records: Sequence[Record], contents: Sequence[str], settings: Split, seed: int) -> list[str]:
    """Use the source's split; if it has no validation images, take `val` of train by hash."""
    if problems := list(_unusable_splits(records, contents)):
        raise InputError(*first_five(problems, "images"))
    given = [record.split or "" for record in records]
    if "test" not in given:
        raise InputError(
            "split.method: predefined: got no image in test; name the test images in your data, or split all anew: "
            "set split.method to hash, grouped or stratified"
        )
    if "val" in given:
        return given
    units = _units(records, contents)
    return [
        "val" if split == "train" and position(seed, unit) < settings.val else split
        for split, unit in zip(given, units, strict=True)
    ]


def _unusable_splits(records: Sequence[Record], contents: Sequence[str]) -> Iterator[str]:
    """Yield the images without a valid split, or with another split than images with the same bytes."""
    split_of = {content: record.split for record, content in zip(records, contents, strict=True)}
    for record, content in zip(records, contents, strict=True):
        if record.split not in SPLITS:
            yield unknown(f"{record.path}: split", record.split or "(none)", SPLITS)
        elif record.split != split_of[content]:
            yield f"{record.path}: the same bytes are also in split {split_of[content]!r}, here in {record.split!r}"


METHODS: Mapping[str, Method] = {
    "hash": _by_hash,
    "stratified": _stratified,
    "grouped": _grouped,
    "predefined": _predefined,
}


def require_left(table: Manifest, kept: Sequence[int], gone: str) -> None:
    """Raise InputError unless some of the kept rows of the manifest are left for every class in every split.

    `gone` says what happened to the others.
    """
    labels, splits = ([column[row] for row in kept] for column in (table.label, table.split))
    _require_every_class(labels, splits, table.classes, f"{gone}: replace these, or add images")


def _require_every_class(labels: Sequence[str], splits: Sequence[str], classes: Iterable[str], remedy: str) -> None:
    """Raise InputError unless there are at least two classes, and all have images in every split."""
    counted = Counter(labels)
    totals = {name: counted[name] for name in classes}
    cells = Counter(zip(labels, splits, strict=True))
    problems = [
        f"class {label!r}: got {total} images, {', '.join(f'{cells[label, split]} in {split}' for split in SPLITS)}; "
        f"expected at least 1 in each: {remedy}"
        for label, total in sorted(totals.items())
        if any(cells[label, split] == 0 for split in SPLITS)
    ]
    problems = first_five(problems, "classes")
    if len(totals) == 1:
        problems.append(f"data: got 1 class ({next(iter(totals))!r}), expected at least 2")
    if problems:
        raise InputError(*problems)
