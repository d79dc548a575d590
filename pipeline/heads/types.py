"""The types that the files of this folder share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.embeddings.mapped import MappedRows

Floats = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.str_]
Probabilities = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]
Classifier = Any
"""A scikit-learn classifier; the library has no types."""
Factory = Callable[..., Classifier]


Features = Floats | MappedRows
"""(n, D); stored ones are read block by block, by heads that can."""


def chosen_rows(X: Features, rows: Ints) -> Features:
    """Return some rows of X; stored ones stay unread."""
    return X.chosen(rows) if isinstance(X, MappedRows) else X[rows]
