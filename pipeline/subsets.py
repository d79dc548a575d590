"""Nested parts of the training images, as if fewer had been labelled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.params import Curve
from pipeline.splits import position

Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Subset:
    """Some training images."""

    seed: int
    """Of the drawing; the subsets of one drawing are nested."""
    rows: Ints
    """(labels,), ascending."""


def draw(
    train: Ints, targets: Ints, contents: Sequence[str], settings: Curve, seed: int, at_least: int
) -> list[Subset]:
    """Draw the fractions of the training images, class by class, as often as the settings say.

    The order within a class follows from the seed and the image's content, as in the splits. A fraction that would be
    the same images as the one before, for `at_least` of a class are always taken, is left out.

    Args:
        train: (n,) rows of the training images.
        targets: (N,) classes of all rows.
        contents: (N,) sha256 of all rows' bytes.
        settings: fractions, and how many drawings.
        seed: of the first drawing; the next ones count on from it.
        at_least: images of each class, as far as there are as many.

    """
    subsets = []
    for number in range(seed, seed + settings.seeds):
        ranked = sorted(train.tolist(), key=lambda row: (position(number, contents[row]), row))
        by_class = [[row for row in ranked if targets[row] == one] for one in np.unique(targets[train])]
        sizes: set[int] = set()
        for fraction in settings.fractions:
            rows = [row for rows in by_class for row in rows[: max(at_least, math.ceil(fraction * len(rows)))]]
            if len(rows) not in sizes:
                subsets.append(Subset(number, np.array(sorted(rows))))
                sizes.add(len(rows))
    return subsets
