"""Outliers: images further from their neighbours than images of this data set are."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

FAR = 3.5
"""Modified z-score that makes an outlier: the value that Iglewicz & Hoaglin (1993) recommend."""
FEWEST = 30
"""Images without which nobody can say what is usual."""
_TO_SIGMA = 1.4826
"""A normal distribution's standard deviation, of its median absolute deviation."""


def scores(distance: Floats) -> Floats:
    """Return how far out images lie: the modified z-score of the logarithm of their mean distance to neighbours (N,).

    The median and the median absolute deviation instead of mean and standard deviation: outliers do not move them. Of
    the logarithm, for distances are skewed.

    Args:
        distance: (N, k) to the nearest others, above 0 but for copies.

    """
    if len(distance) < FEWEST or not distance.shape[1]:
        return np.zeros(len(distance))
    log = np.log(np.maximum(distance.mean(axis=1, dtype=np.float64), 1e-9))
    spread = _TO_SIGMA * np.median(np.abs(log - np.median(log)))
    return np.asarray((log - np.median(log)) / spread) if spread > 0 else np.zeros(len(log))
