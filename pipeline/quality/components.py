"""Principal components of embeddings, and nearest neighbours in them."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import systems
from pipeline.core.threads import one_thread
from pipeline.evaluation import neighbours
from pipeline.evaluation.projection import Features

Single = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer[Any]]

COMPONENTS = 256
FITTED = 20_000
"""Rows, sampled at random, to which the components are fitted."""
_BLOCK = 4096
_LEAST_VARIANCE = 1e-10
"""In multiples of the largest variance: less is rounding."""


def of(X: Features, seed: int) -> Single:
    """Scale rows to length 1, project them on their first principal components, and scale the total variance to 1.

    Only the sample and a few blocks of rows are in memory as float32. Blocks run in parallel, each on one thread: so
    the result has the same bytes for any number of threads.

    Args:
        X: (N, D) of any float type, such as a mapped file's.
        seed: of the sample to which the components are fitted.

    Returns:
        (N, up to 256).

    """
    sample = neighbours.of_length_one(X[np.sort(np.random.default_rng(seed).permutation(len(X))[:FITTED])])
    with one_thread(), ThreadPoolExecutor(systems.cores()) as pool:
        parts = [slice(start, start + _BLOCK) for start in range(0, len(sample), _BLOCK)]
        centre = sample[0] + (sample - sample[0]).mean(axis=0)  # exact where all rows are equal
        sample -= centre
        gram = sum(pool.map(lambda part: (sample[part].T @ sample[part]).astype(np.float64), parts))
        axes = _axes(np.asarray(gram) / len(sample), min(COMPONENTS, max(1, len(sample) - 1)))
        blocks = [slice(start, start + _BLOCK) for start in range(0, len(X), _BLOCK)]
        rotated = pool.map(lambda rows: (neighbours.of_length_one(X[rows]) - centre) @ axes, blocks)
        return np.concatenate(list(rotated))


def _axes(covariance: npt.NDArray[np.float64], most: int) -> Single:
    """Return the first principal axes (D, r), divided by the standard deviation in all of them together."""
    from scipy.linalg import eigh  # noqa: PLC0415

    width = len(covariance)
    variance, axes = eigh(covariance, subset_by_index=(max(0, width - most), width - 1))
    kept = variance > _LEAST_VARIANCE * max(variance.max(), np.finfo(np.float32).tiny)
    total = variance[kept].sum()
    if not kept.any() or total <= np.finfo(np.float32).tiny:
        return np.zeros((width, 1), np.float32)
    return np.asarray(axes[:, kept] / np.sqrt(total), np.float32)


def nearest(rows: Single, k: int) -> tuple[Ints, Single]:
    """Return the k nearest other rows of each and their Euclidean distances, nearest first: both (N, k).

    Of |x - y|^2 = |x|^2 + |y|^2 - 2 x.y only the last two terms depend on y: one product gives both, of rows with one
    more column.
    """
    if k < 1:
        return np.empty((len(rows), 0), np.intp), np.empty((len(rows), 0), np.float32)
    squared = np.einsum("ij,ij->i", rows, rows)
    queries, among = np.column_stack([rows, np.ones_like(squared)]), np.column_stack([rows, -squared / 2])
    found, product = neighbours.nearest(queries, among, k, itself=True)
    return found, np.sqrt(np.maximum(squared[:, None] - 2 * product, 0))
