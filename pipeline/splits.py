"""Deal records to train, validation and test."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from pipeline.errors import InputError, first_five, unknown
from pipeline.manifest import SPLITS, Record
from pipeline.params import Split

Deal = Callable[[Sequence[Record], Sequence[str], Split, int], list[str]]


def assign(records: Sequence[Record], contents: Sequence[str], settings: Split, seed: int) -> list[str]:
    """Return one of "train", "val", "test" for every record.

    Args:
        records: N records.
        contents: the sha256 of each record's bytes, (N,).
        settings: the method and the fractions.
        seed: changes the split and nothing else.

    Raises:
        InputError: if a class is missing from a split, or a predefined split has another name.

    """
    splits = METHODS[settings.method](records, contents, settings, seed)
    require_every_class([record.label for record in records], splits)
    return splits


def position(seed: int, unit: str) -> float:
    """Return u in [0, 1): the first 8 bytes of sha256(seed, unit) over 2^64; it never depends on other images."""
    digest = hashlib.sha256(f"{seed}:{unit}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _units(records: Sequence[Record], contents: Sequence[str]) -> list[str]:
    """Name what stays together: the group where there is one, else the content.

    Where equal bytes stand in several groups, the groups are one unit under the smallest of their names, so that
    duplicates never straddle.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            name = above
        return name

    names = [record.group or content for record, content in zip(records, contents, strict=True)]
    first_with: dict[str, str] = {}
    for name, content in zip(names, contents, strict=True):
        one, other = sorted((root(name), root(first_with.setdefault(content, name))))
        parent[other] = one
    return [root(name) for name in names]


def _by_hash(records: Sequence[Record], contents: Sequence[str], settings: Split, seed: int) -> list[str]:
    """Stateless: adding images never moves an old one; the fractions hold on average."""

    def split_of(u: float) -> str:
        if u < settings.test:
            return "test"
        return "val" if u < settings.test + settings.val else "train"

    return [split_of(position(seed, unit)) for unit in _units(records, contents)]


def _stratified(records: Sequence[Record], contents: Sequence[str], settings: Split, seed: int) -> list[str]:
    """Exact fractions within every (label, stratum); adding images may move old ones."""
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


def _predefined(records: Sequence[Record], contents: Sequence[str], settings: Split, seed: int) -> list[str]:  # noqa: ARG001
    """Take what the source says."""
    split_of = {content: record.split for record, content in zip(records, contents, strict=True)}
    problems = [
        f"{record.path}: the same bytes are also in split {split_of[content]!r}, here in {record.split!r}"
        for record, content in zip(records, contents, strict=True)
        if record.split != split_of[content]
    ]
    problems += [
        unknown(f"{record.path}: split", record.split or "(none)", SPLITS)
        for record in records
        if record.split not in SPLITS
    ]
    if problems:
        raise InputError(*first_five(problems, "images"))
    return [record.split or "" for record in records]


METHODS: Mapping[str, Deal] = {"hash": _by_hash, "stratified": _stratified, "predefined": _predefined}


def require_every_class(labels: Sequence[str], splits: Sequence[str]) -> None:
    """Raise InputError unless there are two classes or more, and every one has images in every split."""
    totals = Counter(labels)
    cells = Counter(zip(labels, splits, strict=True))
    problems = [
        f"class {label!r}: got {total} images, {', '.join(f'{cells[label, split]} in {split}' for split in SPLITS)}; "
        "expected at least 1 in each: add images, or try split.method: stratified"
        for label, total in sorted(totals.items())
        if any(cells[label, split] == 0 for split in SPLITS)
    ]
    if len(totals) == 1:
        problems.append(f"data: got 1 class ({next(iter(totals))!r}), expected at least 2")
    if problems:
        raise InputError(*problems)
