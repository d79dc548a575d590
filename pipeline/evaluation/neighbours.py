"""The most similar rows of each row, exactly, in blocks: memory does not grow with rows times rows."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.intp]

_BLOCK = 1024
_WIDE = 8192


def of_length_one(rows: Floats) -> npt.NDArray[np.float32]:
    """Return rows (n, D) as float32 of length 1, so that their products are cosines; a row of zeros stays one."""
    wide = rows.astype(np.float32)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.finfo(np.float32).tiny))


def nearest(
    queries: npt.NDArray[np.float32], among: npt.NDArray[np.float32], k: int, *, itself: bool = False
) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Return the k most similar rows of each query, most similar first: their numbers and products, both (n, k).

    Every block is computed on one thread, several blocks at a time, so that the same rows give the same bytes whatever
    the number of threads. Of equally similar rows the first one counts.

    Args:
        queries: (n, D).
        among: (m, D), at least k of them, and one more with `itself`.
        k: how many.
        itself: whether query i is row i of `among`, and is not to be found.

    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # noqa: PLC0415

    starts = range(0, len(queries), _BLOCK)
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda start: _block(queries, among, k, start, itself=itself), starts))
    if not found:
        return np.empty((0, k), np.intp), np.empty((0, k), np.float32)
    return np.concatenate([rows for rows, _ in found]), np.concatenate([similarity for _, similarity in found])


def _block(
    queries: npt.NDArray[np.float32], among: npt.NDArray[np.float32], k: int, start: int, *, itself: bool
) -> tuple[Ints, npt.NDArray[np.float32]]:
    part = queries[start : start + _BLOCK]
    row, best = np.empty((len(part), 0), np.intp), np.empty((len(part), 0), np.float32)
    for left in _starts(len(among)):
        similarity = part @ among[left : left + _WIDE].T
        if itself:
            own = np.arange(start, start + len(part))
            here = (own >= left) & (own < left + similarity.shape[1])
            similarity[np.flatnonzero(here), own[here] - left] = -np.inf
        few = min(k, similarity.shape[1])
        place = np.argpartition(-similarity, few - 1, axis=1)[:, :few]
        row = np.concatenate([row, place + left], axis=1)
        best = np.concatenate([best, np.take_along_axis(similarity, place, axis=1)], axis=1)
    order = np.lexsort((row, -best), axis=1)[:, :k]
    return np.take_along_axis(row, order, axis=1), np.take_along_axis(best, order, axis=1)


def _starts(rows: int) -> Iterator[int]:
    yield from range(0, rows, _WIDE)
