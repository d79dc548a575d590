"""How unlike the training images an image is: its distance to the nearest of them, against the usual distances."""

import numpy as np
import numpy.typing as npt

from pipeline.evaluation import neighbours

Single = npt.NDArray[np.float32]

REFERENCE = 5_000
"""Training images, drawn at random, whose distances are the usual ones."""
UNLIKE = 99.0
"""The percentile of the usual distances from which an image is flagged as unlike the training images."""


def usual(train: Single, seed: int) -> npt.NDArray[np.float64]:
    """Return the distances of training images to the nearest other one, ascending: (up to REFERENCE,).

    Args:
        train: (n, D) embeddings of length 1, two at least.
        seed: of the drawing.

    """
    sample = np.sort(np.random.default_rng(seed).permutation(len(train))[:REFERENCE])
    _, similarity = neighbours.nearest(train[sample], train, 2)
    return np.sort(1 - similarity[:, 1].astype(np.float64))


def distances(images: Single, train: Single) -> npt.NDArray[np.float64]:
    """Return cosine distances, 0 to 2, of images to the nearest training image: (n,); both (n or m, D), of length 1."""
    _, similarity = neighbours.nearest(images, train, 1)
    return 1 - similarity[:, 0].astype(np.float64)


def percentiles(distance: npt.NDArray[np.float64], usual: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the percentage of usual distances (r,) below each distance (n,): (n,), 0 to 100."""
    return np.asarray(100 * np.searchsorted(usual, distance, side="left") / len(usual))
