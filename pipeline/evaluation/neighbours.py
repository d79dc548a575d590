"""Exact nearest neighbours by cosine, computed in blocks, so that memory does not grow with rows times rows."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from pipeline.core import systems
from pipeline.core.threads import one_thread

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.intp]

_BLOCK = 1024
_WIDE = 8192
_MANY = 8
"""If a query has more than this times k candidates in a block, those below its k-th best are dropped first."""


def of_length_one(rows: Floats) -> npt.NDArray[np.float32]:
    """Return rows (n, D) as float32 with length 1, so that their products are cosines; rows of zeros stay zero."""
    wide = rows.astype(np.float32)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.finfo(np.float32).tiny))


def nearest(
    queries: npt.NDArray[np.float32],
    among: npt.NDArray[np.float32],
    k: int,
    *,
    itself: bool = False,
    least: float = -np.inf,
) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Return the k most similar rows of each query, most similar first: their numbers and products, both (n, k).

    Every block is computed on one thread, several blocks at a time, so that the result has the same bytes on any number
    of threads. Of equally similar rows the first one counts.

    Args:
        queries: (n, D).
        among: (m, D), at least k rows, and one more with `itself`.
        k: the number of neighbours.
        itself: whether query i is row i of `among`, which is then not its own neighbour.
        least: products must exceed it, which saves time; where too few do, the row is -1 and the product -inf.

    """
    starts = range(0, len(queries), _BLOCK)
    with one_thread(), ThreadPoolExecutor(systems.cores()) as pool:
        found = list(
            pool.map(lambda start: _nearest_in_block(queries, among, k, start, itself=itself, least=least), starts)
        )
    if not found:
        return np.empty((0, k), np.intp), np.empty((0, k), np.float32)
    return np.concatenate([rows for rows, _ in found]), np.concatenate([similarity for _, similarity in found])


def _nearest_in_block(
    queries: npt.NDArray[np.float32],
    among: npt.NDArray[np.float32],
    k: int,
    start: int,
    *,
    itself: bool,
    least: float,
) -> tuple[Ints, npt.NDArray[np.float32]]:
    part = queries[start : start + _BLOCK]
    row, best = np.full((len(part), k), -1), np.full((len(part), k), least, np.float32)
    for left in range(0, len(among), _WIDE):
        similarity = part @ among[left : left + _WIDE].T
        if itself:
            own = np.arange(start, start + len(part))
            here = (own >= left) & (own < left + similarity.shape[1])
            similarity[np.flatnonzero(here), own[here] - left] = -np.inf
        query, place = _more_similar(similarity, best[:, -1], k)
        if len(query):
            row, best = _merge(row, best, query, place + left, similarity[query, place])
    best[row < 0] = -np.inf
    return row, best


def _more_similar(similarity: npt.NDArray[np.float32], bound: npt.NDArray[np.float32], k: int) -> tuple[Ints, Ints]:
    """Return the entries of (n, m) that are more similar than the k-th best so far: queries, ascending, and columns.

    After the first blocks there are hardly any, so that a block costs little more than its products.
    """
    better = similarity > bound[:, None]
    found = np.flatnonzero(better)
    if len(found) > k and np.bincount(found // similarity.shape[1]).max() > _MANY * k:
        least = np.partition(similarity, -k, axis=1)[:, -k]
        found = np.flatnonzero(better & (similarity >= least[:, None]))
    return np.divmod(found, similarity.shape[1])


def _merge(
    row: Ints, best: npt.NDArray[np.float32], query: Ints, other: Ints, value: npt.NDArray[np.float32]
) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Merge new rows, in ascending order for each query, into the (n, k) best so far."""
    n, k = row.shape
    count = np.bincount(query, minlength=n)
    place = np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count)
    rows, values = np.zeros((n, int(count.max())), np.intp), np.full((n, int(count.max())), -np.inf, np.float32)
    rows[query, place], values[query, place] = other, value
    rows, values = np.concatenate([row, rows], axis=1), np.concatenate([best, values], axis=1)
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(values, order, axis=1)
