"""Types that the modules of this room share."""

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
"""(n, D): in memory, or in a file that is read block by block."""


def chosen_rows(X: Features, rows: Ints) -> Features:
    """Return some rows of X; rows in a file stay unread."""
    return X.chosen(rows) if isinstance(X, MappedRows) else X[rows]
