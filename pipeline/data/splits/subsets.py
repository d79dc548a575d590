"""Nested parts of the training images, as if fewer had been labelled."""

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
    """Of the drawing; the subsets of one drawing are nested."""
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
    """Draw the fractions of the training images, class by class, as often as the settings say.

    The order within a class follows from the seed and the image's content, as in the splits; of every group one image
    comes before a second one, for images of one group tell less than those of several. A fraction that would be the
    same images as the one before, for `at_least` of a class are always taken, is left out.

    Args:
        train: (n,) rows of the training images.
        targets: (N,) classes of all rows.
        contents: (N,) sha256 of all rows' bytes.
        groups: (N,) patients, modules, sessions; empty where there are none.
        settings: fractions, and how many drawings.
        seed: of the first drawing; the next ones count on from it.
        at_least: images of each class, as far as there are as many.

    """
    subsets = []
    for number in ((seed + drawing) % 2**32 for drawing in range(settings.seeds)):
        ranked = sorted(train.tolist(), key=lambda row: (position(number, contents[row]), row))
        of_each = [[row for row in ranked if targets[row] == one] for one in np.unique(targets[train])]
        by_class = [_in_turn(rows, groups) for rows in of_each]
        sizes: set[int] = set()
        for fraction in settings.fractions:
            rows = [row for rows in by_class for row in rows[: max(at_least, math.ceil(fraction * len(rows)))]]
            if len(rows) not in sizes:
                subsets.append(Subset(number, np.array(sorted(rows))))
                sizes.add(len(rows))
    return subsets


def _in_turn(rows: Sequence[int], groups: Sequence[str]) -> list[int]:
    """Take one row of every group, then a second one, and so on; rows without a group are groups of their own."""
    taken: Counter[str] = Counter()
    turns = []
    for row in rows:
        turns.append(taken[groups[row]] if groups[row] else 0)
        taken[groups[row]] += 1
    return [row for _, row in sorted(zip(turns, rows, strict=True), key=lambda pair: pair[0])]
