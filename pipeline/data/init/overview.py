"""A first look at labelled images: how many per class, how large, and which are unreadable."""

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
from pipeline.core.words import counted
from pipeline.data.images.decoding import BadImageError, dimensions
from pipeline.data.manifest import Record

SHOWN = 12
"""Classes listed; if there are more, the largest and the smallest."""
FEW = 10
"""Images of a class below which little can be learnt or measured."""


@dataclass(frozen=True)
class Overview:
    """Counts and sizes of N images."""

    of_class: Mapping[str, int]
    groups: int
    sides: Sequence[tuple[int, int]]
    """Width and height of each readable image."""
    bytes: int
    copies: int
    """Images with the same bytes as another one."""
    unreadable: Sequence[str]
    """A line for each image."""


def of(records: Sequence[Record], contents: Sequence[str], paths: Sequence[Path]) -> Overview:
    """Read every image's header. None is decoded, so damage further inside goes unnoticed.

    Args:
        records: N images.
        contents: the sha256 of each one's bytes, (N,).
        paths: of each image's file, (N,).

    """
    with ThreadPoolExecutor() as pool:
        headers = list(tqdm(pool.map(_header, paths), total=len(paths), desc="look", unit="image", disable=None))
    return Overview(
        of_class=Counter(record.label for record in records),
        groups=len({record.group for record in records if record.group}),
        sides=[header.sides for header in headers if header.sides],
        bytes=sum(header.bytes for header in headers),
        copies=len(contents) - len(set(contents)),
        unreadable=[
            f"{record.path}: {header.problem}"
            for record, header in zip(records, headers, strict=True)
            if header.problem
        ],
    )


@dataclass(frozen=True)
class _Header:
    bytes: int
    sides: tuple[int, int] | None = None
    problem: str = ""


def _header(path: Path) -> _Header:
    content = stamps.read_bytes(path)
    try:
        return _Header(len(content), dimensions(content))
    except BadImageError as error:
        return _Header(len(content), problem=str(error))


def text(seen: Overview) -> str:
    """Return the overview for a terminal, several lines."""
    return "\n".join(_lines(seen))


def _lines(seen: Overview) -> Iterator[str]:
    total, classes = sum(seen.of_class.values()), len(seen.of_class)
    size = f"{seen.bytes / 1e6:,.0f} MB" if seen.bytes >= 1e6 else f"{seen.bytes / 1e3:,.0f} kB"
    groups = f", {counted(seen.groups, 'group')}" if seen.groups else ""
    yield f"{counted(total, 'image')}, {size}, {counted(classes, 'class', 'classes')}{groups}"
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
        copies = counted(seen.copies, "image has", "images have")
        yield f"copies: {copies} the same bytes as another one; a split keeps them together"
    if seen.unreadable:
        files = counted(len(seen.unreadable), "file")
        yield f"unreadable: {files}, which `embed.on_bad_image: skip` would leave out and list"
        yield from (f"  {line}" for line in first_five(seen.unreadable, "unreadable files"))
    if small := [name for name, count in ranked if count < FEW]:
        yield f"small classes, below {FEW} images: {', '.join(small[:5])}" + (", ..." if len(small) > 5 else "")
