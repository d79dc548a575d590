"""Outliers: images unusually far from their neighbours."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

FAR = 3.5
"""The modified z-score of an outlier, as Iglewicz & Hoaglin (1993) recommend."""
FEWEST = 30
"""With fewer images, nobody can say what is usual."""
_TO_SIGMA = 1.4826
"""A normal distribution's standard deviation, in multiples of its median absolute deviation."""


def scores(distance: Floats) -> Floats:
    """Return the modified z-score of the logarithm of each image's mean distance to its neighbours: (N,).

    It uses the median and the median absolute deviation, which outliers do not move, and the logarithm, since distances
    are skewed.

    Args:
        distance: (N, k) to the nearest others; 0 for copies.

    """
    if len(distance) < FEWEST or not distance.shape[1]:
        return np.zeros(len(distance))
    log = np.log(np.maximum(distance.mean(axis=1, dtype=np.float64), 1e-9))
    spread = _TO_SIGMA * np.median(np.abs(log - np.median(log)))
    return np.asarray((log - np.median(log)) / spread) if spread > 0 else np.zeros(len(log))
