"""A first look at labelled images: how many of which class, how large, and which cannot be read."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipeline.core import stamps
from pipeline.core.errors import first_five
from pipeline.core.tables import aligned
from pipeline.data.images.decoding import BadImageError, dimensions
from pipeline.data.manifest import Record

SHOWN = 12
"""Classes that are listed; of more, the largest and the smallest."""
FEW = 10
"""Images of a class below which little can be learnt or judged."""


@dataclass(frozen=True)
class Glance:
    """What was seen of N images."""

    of_class: Mapping[str, int]
    groups: int
    sides: Sequence[tuple[int, int]]
    """Width and height of each that could be opened."""
    bytes: int
    copies: int
    """Images whose bytes another one has."""
    unreadable: Sequence[str]
    """A line each."""


def look(records: Sequence[Record], contents: Sequence[str], paths: Sequence[Path]) -> Glance:
    """Open every image's header; none is decoded, so that damage further inside is not seen.

    Args:
        records: N images.
        contents: the sha256 of each one's bytes, (N,).
        paths: where to open each, (N,).

    """
    with ThreadPoolExecutor() as pool:
        seen = list(tqdm(pool.map(_opened, paths), total=len(paths), desc="look", unit="image", disable=None))
    return Glance(
        of_class=Counter(record.label for record in records),
        groups=len({record.group for record in records if record.group}),
        sides=[one.sides for one in seen if one.sides],
        bytes=sum(one.bytes for one in seen),
        copies=len(contents) - len(set(contents)),
        unreadable=[f"{record.path}: {one.problem}" for record, one in zip(records, seen, strict=True) if one.problem],
    )


@dataclass(frozen=True)
class _Seen:
    bytes: int
    sides: tuple[int, int] | None = None
    problem: str = ""


def _opened(path: Path) -> _Seen:
    content = stamps.read_bytes(path)
    try:
        return _Seen(len(content), dimensions(content))
    except BadImageError as error:
        return _Seen(len(content), problem=str(error))


def described(seen: Glance) -> str:
    """Return what was seen as text for a terminal, several lines."""
    return "\n".join(_lines(seen))


def _lines(seen: Glance) -> Iterator[str]:
    total, classes = sum(seen.of_class.values()), len(seen.of_class)
    size = f"{seen.bytes / 1e6:,.0f} MB" if seen.bytes >= 1e6 else f"{seen.bytes / 1e3:,.0f} kB"
    yield f"{total:,} images, {size}, {classes:,} classes" + (f", {seen.groups:,} groups" if seen.groups else "")
    ranked = sorted(seen.of_class.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = ranked if classes <= SHOWN else [*ranked[: SHOWN // 2], *ranked[-SHOWN // 2 :]]
    rows = [(f"  {name}", f"{count:,}", f"{count / total:.1%}") for name, count in shown]
    if classes > SHOWN:
        rows.insert(SHOWN // 2, (f"  ... {classes - SHOWN:,} more", "", ""))
    yield aligned(rows)
    if len(ranked) > 1 and ranked[0][1] > 3 * ranked[-1][1]:
        ratio = ranked[0][1] / ranked[-1][1]
        yield f"imbalance: the largest class has {ratio:,.1f} times the images of the smallest"
    if seen.sides:
        shorter = np.array([min(side) for side in seen.sides])
        spread = f" to {shorter.max():,} pixels, half of them at least {int(np.median(shorter)):,}"
        yield f"shorter side: {shorter.min():,}{spread if len(set(shorter)) > 1 else ' pixels'}"
    if seen.copies:
        yield f"copies: {seen.copies:,} images have the bytes of another one; a split keeps such together"
    if seen.unreadable:
        yield f"unreadable: {len(seen.unreadable):,} files, which `embed.on_bad_image: skip` would leave out and list"
        yield from (f"  {line}" for line in first_five(seen.unreadable, "unreadable files"))
    if small := [name for name, count in ranked if count < FEW]:
        yield f"small classes, below {FEW} images: {', '.join(small[:5])}" + (", ..." if len(small) > 5 else "")
