"""The types that the files of this folder share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.embeddings.stored import Stored

Floats = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.str_]
Ints = npt.NDArray[np.integer[Any]]
Classifier = Any
"""A scikit-learn classifier; the library has no types."""
Factory = Callable[..., Classifier]


Features = Floats | Stored
"""(n, D); stored ones are read block by block, by heads that can."""


def chosen_rows(X: Features, rows: Ints) -> Features:
    """Return some rows of X; stored ones stay unread."""
    return X.chosen(rows) if isinstance(X, Stored) else X[rows]


def below(first: Features, second: Features) -> Features:
    """Put the rows of the second below those of the first; stored ones must be of one matrix, and stay unread."""
    if isinstance(first, Stored) and isinstance(second, Stored):
        return Stored(first.parts, np.concatenate([first.rows, second.rows]))
    return np.concatenate([np.asarray(first), np.asarray(second)])


@dataclass(frozen=True)
class Rows:
    """What a head learns from or is judged by: n rows, some of which may be further views of the same image."""

    X: Features
    """(n, D)."""
    y: Labels
    """(n,)."""
    image: Ints
    """(n,) numbers the images; the first row of each is the image as it is."""
    group: Labels
    """(n,) patients, modules, sessions: what must not straddle folds; empty where there are none."""

    @classmethod
    def of(cls, X: Features, y: Labels, image: Ints | None = None, group: Labels | None = None) -> "Rows":
        """Make rows of plain arrays; left out, every row is an image of its own and there are no groups."""
        return cls(X, y, np.arange(len(y)) if image is None else image, np.full(len(y), "") if group is None else group)

    def __getitem__(self, chosen: Ints) -> "Rows":
        """Return some of the rows; those of a matrix that is larger than memory stay unread."""
        return Rows(chosen_rows(self.X, chosen), self.y[chosen], self.image[chosen], self.group[chosen])

    def __add__(self, other: "Rows") -> "Rows":
        """Put other images below these."""
        return Rows(
            below(self.X, other.X),
            np.concatenate([self.y, other.y]),
            np.concatenate([self.image, other.image + self.image.max() + 1]),
            np.concatenate([self.group, other.group]),
        )
