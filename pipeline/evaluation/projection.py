"""A map of features in the plane: t-SNE of some rows, and the other rows next to the most similar of these."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.core.threads import one_thread
from pipeline.evaluation.neighbours import of_length_one

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]

LANDMARKS = 5000
"""Rows that t-SNE places: its time grows with their number, and a map of more is no easier to read."""
COMPONENTS = 50
PERPLEXITY = 30.0
FEWEST_ROWS = 10
"""Fewer rows are placed by their principal components, because they have no neighbourhoods."""
NEAREST = 5
_BLOCK = 4096
_DECIMALS = 4


class Features(Protocol):
    """(N, D) features whose rows are read by a slice or an array of row numbers."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...  # noqa: ANN401  # arrays index by more than we do


def project(X: Features, seed: int) -> Floats:
    """Place every row in the unit square: (N, 2), rounded to 4 decimals, N at least 1.

    Rows are scaled to length 1, reduced to 50 principal components and placed by t-SNE (van der Maaten & Hinton 2008;
    started from the first two components, as Kobak & Berens 2019 advise). Of more than LANDMARKS rows, so many are
    drawn at random and placed; each other row is put at the mean of its nearest landmarks, weighted by the inverse of
    the distance.

    All runs on one thread: on one type of CPU, with one version of the libraries, the same seed and rows give the same
    bytes on any number of cores. On other CPUs rounding differs, and t-SNE amplifies it. One block of rows and the
    landmarks are in memory as float32, and 50 numbers of every row.

    Args:
        X: (N, D) of any float type, such as a mapped file's.
        seed: of the choice of landmarks, and of the solvers.

    """
    import sklearn.manifold  # noqa: F401, PLC0415  # the thread limit only binds libraries that are loaded before

    chosen = np.sort(np.random.default_rng(seed).permutation(len(X))[:LANDMARKS])
    with one_thread():
        components = _principal_components(X, chosen, seed)
        position = np.empty((len(X), 2))
        position[chosen] = _tsne(components[chosen], seed)
        others = np.setdiff1d(np.arange(len(X)), chosen, assume_unique=True)
        if len(others):
            position[others] = _interpolate(components[others], components[chosen], position[chosen])
    return _into_unit_square(position)


def _principal_components(X: Features, chosen: Ints, seed: int) -> Floats:
    """Project all rows on the principal components of the chosen rows: (N, up to 50)."""
    from sklearn.utils.extmath import randomized_svd  # noqa: PLC0415

    sample = of_length_one(X[chosen])
    centre = sample[0] + (sample - sample[0]).mean(axis=0)  # exact if all rows are equal
    _, _, axes = randomized_svd(sample - centre, min(COMPONENTS, *sample.shape), random_state=seed)
    blocks = (slice(start, start + _BLOCK) for start in range(0, len(X), _BLOCK))
    return np.concatenate([(of_length_one(X[block]) - centre) @ axes.T for block in blocks])


def _tsne(components: Floats, seed: int) -> Floats:
    """Place rows (n, up to 50) by t-SNE: (n, 2)."""
    from sklearn.manifold import TSNE  # noqa: PLC0415

    first = np.pad(components[:, :2], [(0, 0), (0, max(0, 2 - components.shape[1]))])
    spread = first[:, 0].std()
    if len(first) < FEWEST_ROWS or spread == 0:
        return first
    start = first / spread * 1e-4  # small, because far points would hardly move (Kobak & Berens 2019)
    perplexity = min(PERPLEXITY, (len(first) - 1) / 3)
    return np.asarray(TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(components))


def _interpolate(rows: Floats, landmarks: Floats, position: Floats) -> Floats:
    """Place rows at the weighted mean of their nearest landmarks: (n, 2)."""
    from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415

    index = NearestNeighbors(n_neighbors=min(NEAREST, len(landmarks)), algorithm="brute").fit(landmarks)
    found = []
    for start in range(0, len(rows), _BLOCK):
        distance, nearest = index.kneighbors(rows[start : start + _BLOCK])
        weight = 1 / np.maximum(distance.astype(np.float64), 1e-9)
        weight /= weight.sum(axis=1, keepdims=True)
        found.append((weight[:, :, None] * position[nearest]).sum(axis=1))
    return np.concatenate(found)


def _into_unit_square(position: Floats) -> Floats:
    """Centre the map in the unit square and scale both axes alike to fill it."""
    low, high = position.min(axis=0), position.max(axis=0)
    scale = float((high - low).max()) or 1.0
    return np.asarray(np.round((position - (low + high) / 2) / scale + 0.5, _DECIMALS))
