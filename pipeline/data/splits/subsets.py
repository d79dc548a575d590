"""Nested subsets of the training images, as if fewer had been labelled."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core.sections import Curve
from pipeline.data.splits.methods import position

Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Subset:
    """Some training images."""

    seed: int
    """Subsets with the same seed are nested."""
    rows: Ints
    """(labels,), ascending."""


def draw(
    train: Ints,
    targets: Ints,
    contents: Sequence[str],
    groups: Sequence[str],
    settings: Curve,
    seed: int,
    at_least: int,
) -> list[Subset]:
    """Sample fractions of the training images, class by class, for several seeds.

    The order within a class follows from the seed and the image's content, as in the splits. One image of every group
    comes before a second one of any, since images of several groups say more than those of one. A fraction is left out
    if it has the same images as the one before, because at least `at_least` of each class are taken.

    Args:
        train: (n,) rows of the training images.
        targets: (N,) classes of all rows.
        contents: (N,) sha256 of all rows' bytes.
        groups: (N,) such as patients or sessions; empty if there are none.
        settings: the fractions, and the number of seeds.
        seed: the first one; the others follow it.
        at_least: images of each class, or all if it has fewer.

    """
    subsets = []
    for number in ((seed + offset) % 2**32 for offset in range(settings.seeds)):
        ranked = sorted(train.tolist(), key=lambda row: (position(number, contents[row]), row))
        of_each = [[row for row in ranked if targets[row] == one] for one in np.unique(targets[train])]
        by_class = [_group_by_group(rows, groups) for rows in of_each]
        sizes: set[int] = set()
        for fraction in settings.fractions:
            rows = [row for rows in by_class for row in rows[: max(at_least, math.ceil(fraction * len(rows)))]]
            if len(rows) not in sizes:
                subsets.append(Subset(number, np.array(sorted(rows))))
                sizes.add(len(rows))
    return subsets


def _group_by_group(rows: Sequence[int], groups: Sequence[str]) -> list[int]:
    """Return the rows reordered: one of every group, then a second one, and so on; no group is a group of one."""
    taken: Counter[str] = Counter()
    turns = []
    for row in rows:
        turns.append(taken[groups[row]] if groups[row] else 0)
        taken[groups[row]] += 1
    return [row for _, row in sorted(zip(turns, rows, strict=True), key=lambda pair: pair[0])]
