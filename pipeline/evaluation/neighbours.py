"""The most similar rows of each row, exactly, in blocks: memory does not grow with rows times rows."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from pipeline.core.threads import one_thread

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.intp]

_BLOCK = 1024
_WIDE = 8192
_MANY = 8
"""Times k: if some query has so many candidates in a block, its k-th best is sought before any is taken."""


def of_length_one(rows: Floats) -> npt.NDArray[np.float32]:
    """Return rows (n, D) as float32 of length 1, so that their products are cosines; a row of zeros stays one."""
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

    Every block is computed on one thread, several blocks at a time, so that the same rows give the same bytes whatever
    the number of threads. Of equally similar rows the first one counts.

    Args:
        queries: (n, D).
        among: (m, D), at least k of them, and one more with `itself`.
        k: how many.
        itself: whether query i is row i of `among`, and is not to be found.
        least: what a product must exceed, which makes it faster; where fewer do, the row is -1 and the product -inf.

    """
    starts = range(0, len(queries), _BLOCK)
    with one_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda start: _block(queries, among, k, start, itself=itself, least=least), starts))
    if not found:
        return np.empty((0, k), np.intp), np.empty((0, k), np.float32)
    return np.concatenate([rows for rows, _ in found]), np.concatenate([similarity for _, similarity in found])


def _block(
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
        query, place = _better(similarity, best[:, -1], k)
        if len(query):
            row, best = _merged(row, best, query, place + left, similarity[query, place])
    best[row < 0] = -np.inf
    return row, best


def _better(similarity: npt.NDArray[np.float32], bound: npt.NDArray[np.float32], k: int) -> tuple[Ints, Ints]:
    """Return what is more similar than the k-th best so far: queries, ascending, and places in (n, m).

    After the first blocks that is next to nothing, so that a block costs one comparison more than its products.
    """
    better = similarity > bound[:, None]
    found = np.flatnonzero(better)
    if len(found) > k and np.bincount(found // similarity.shape[1]).max() > _MANY * k:
        least = np.partition(similarity, -k, axis=1)[:, -k]
        found = np.flatnonzero(better & (similarity >= least[:, None]))
    return np.divmod(found, similarity.shape[1])


def _merged(
    row: Ints, best: npt.NDArray[np.float32], query: Ints, other: Ints, value: npt.NDArray[np.float32]
) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Put newly found rows, those of each query in ascending order, among the (n, k) best so far."""
    n, k = row.shape
    count = np.bincount(query, minlength=n)
    place = np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count)
    rows, values = np.zeros((n, int(count.max())), np.intp), np.full((n, int(count.max())), -np.inf, np.float32)
    rows[query, place], values[query, place] = other, value
    rows, values = np.concatenate([row, rows], axis=1), np.concatenate([best, values], axis=1)
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(values, order, axis=1)
