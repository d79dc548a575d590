"""A map of features in the plane: t-SNE of some rows, the others beside those that they are most like."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.core.threads import one_thread
from pipeline.evaluation.neighbours import of_length_one

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]

LANDMARKS = 5000
"""Rows that t-SNE places; its time grows with their number, and a map of more is read no better."""
COMPONENTS = 50
PERPLEXITY = 30.0
FEWEST = 10
"""Fewer rows are placed by their principal components: they have no neighbourhoods to speak of."""
NEAREST = 5
_BLOCK = 4096
_DECIMALS = 4


class Features(Protocol):
    """(N, D) features, of which rows are read by a slice or an array of their numbers."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...  # noqa: ANN401  # arrays index by more than we do


def project(X: Features, seed: int) -> Floats:
    """Place every row in the unit square: (N, 2), rounded to 4 decimals, N at least 1.

    Rows of length 1 are reduced to 50 principal components and placed by t-SNE (van der Maaten & Hinton 2008; started
    from the first two components, as Kobak & Berens 2019 advise). With more than LANDMARKS rows that is done for so
    many of them, drawn at random; any other row is put at the mean of its nearest landmarks, weighted by the inverse of
    the distance, so that it may come to lie between clusters if it lies between them.

    All of it runs on one thread: the same seed and rows give the same bytes whatever the number of threads or cores,
    on one type of CPU with one version of the libraries. Elsewhere rounding differs, and t-SNE amplifies it. One block
    of rows and the landmarks are in memory as float32, and 50 numbers of every row.

    Args:
        X: (N, D) of any float type, such as a mapped file's.
        seed: of the choice of landmarks, and of the solvers.

    """
    import sklearn.manifold  # noqa: F401, PLC0415  # the limit binds only libraries that are loaded by then

    chosen = np.sort(np.random.default_rng(seed).permutation(len(X))[:LANDMARKS])
    with one_thread():
        reduced = _reduced(X, chosen, seed)
        placed = np.empty((len(X), 2))
        placed[chosen] = _neighbourhoods(reduced[chosen], seed)
        others = np.setdiff1d(np.arange(len(X)), chosen, assume_unique=True)
        if len(others):
            placed[others] = _beside(reduced[others], reduced[chosen], placed[chosen])
    return _into_unit_square(placed)


def _reduced(X: Features, chosen: Ints, seed: int) -> Floats:
    """Return the principal components of all rows, (N, up to 50), as the chosen rows have them."""
    from sklearn.utils.extmath import randomized_svd  # noqa: PLC0415

    sample = of_length_one(X[chosen])
    centre = sample[0] + (sample - sample[0]).mean(axis=0)  # exact where all rows are equal
    _, _, axes = randomized_svd(sample - centre, min(COMPONENTS, *sample.shape), random_state=seed)
    blocks = (slice(start, start + _BLOCK) for start in range(0, len(X), _BLOCK))
    return np.concatenate([(of_length_one(X[block]) - centre) @ axes.T for block in blocks])


def _neighbourhoods(reduced: Floats, seed: int) -> Floats:
    """Place rows (n, up to 50) by t-SNE: (n, 2)."""
    from sklearn.manifold import TSNE  # noqa: PLC0415

    first = np.pad(reduced[:, :2], [(0, 0), (0, max(0, 2 - reduced.shape[1]))])
    spread = first[:, 0].std()
    if len(first) < FEWEST or spread == 0:
        return first
    start = first / spread * 1e-4  # small, for far points hardly move (Kobak & Berens 2019)
    perplexity = min(PERPLEXITY, (len(first) - 1) / 3)
    return np.asarray(TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(reduced))


def _beside(rows: Floats, landmarks: Floats, placed: Floats) -> Floats:
    """Put rows at the weighted mean of their nearest landmarks: (n, 2)."""
    from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415

    index = NearestNeighbors(n_neighbors=min(NEAREST, len(landmarks)), algorithm="brute").fit(landmarks)
    found = []
    for start in range(0, len(rows), _BLOCK):
        distance, nearest = index.kneighbors(rows[start : start + _BLOCK])
        weight = 1 / np.maximum(distance.astype(np.float64), 1e-9)
        weight /= weight.sum(axis=1, keepdims=True)
        found.append((weight[:, :, None] * placed[nearest]).sum(axis=1))
    return np.concatenate(found)


def _into_unit_square(placed: Floats) -> Floats:
    """Move to the middle of the unit square and fill it, with one scale for both axes."""
    low, high = placed.min(axis=0), placed.max(axis=0)
    scale = float((high - low).max()) or 1.0
    return np.asarray(np.round((placed - (low + high) / 2) / scale + 0.5, _DECIMALS))
