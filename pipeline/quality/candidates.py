"""Candidates: for each image the most similar others, also mirrored or slightly cropped.

A picture is reduced to 8 x 8 means, normalised to mean 0 and standard deviation 1, and projected on whitened principal
components: a direction that all images of a task share then counts no more than one that tells two of them apart. Each
image is looked up as it is, mirrored, and without 3% of each border or 5% of one, since its copies may be so. Of 100
copies of each kind among the demo's 2,624 cells, and among 6,000 images of Fashion-MNIST, this finds all within the
nearest three. Looked up only as they are, cropped copies are not even among the nearest eight in 4 of 10 cases;
whitened embeddings miss 2 of 3 of them.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.evaluation import neighbours
from pipeline.quality import registration
from pipeline.quality.registration import Single
from pipeline.quality.signatures import SIDE

Ints = npt.NDArray[np.integer[Any]]
Pictures = npt.NDArray[np.uint8]

K = 3
"""Candidates of each image, in each look-up and in the union of all."""
LEAST = 0.7
"""The least cosine similarity of a candidate; of the copies in docs/quality.md almost all have at least 0.93."""
FITTED = 10_000
"""Pictures, sampled at random, to which the components are fitted."""
_COARSE = 8
_BLOCK = 1024
_RIDGE = 1e-3
"""In multiples of the largest variance: keeps directions that hardly vary from being blown up."""

IDENTITY = (1.0, 0.0, 1.0, 0.0)
# Each image is looked up cropped like this: the warp from the crop to the whole image.
CROPS = (
    IDENTITY,
    (0.94, 0.0, 0.94, 0.0),
    (0.95, 0.05, 1.0, 0.0),
    (0.95, -0.05, 1.0, 0.0),
    (1.0, 0.0, 0.95, 0.05),
    (1.0, 0.0, 0.95, -0.05),
)


class Pairs(NamedTuple):
    """P pairs of pictures, each pair once."""

    first: Ints
    second: Ints
    mirrored: npt.NDArray[np.bool_]
    """(P,) whether the second is mirrored."""
    warp: npt.NDArray[np.float64]
    """(P, 4) the approximate warp from the first to the second."""

    def chosen(self, rows: Ints | npt.NDArray[np.bool_]) -> "Pairs":
        """Return some of the pairs."""
        return Pairs(self.first[rows], self.second[rows], self.mirrored[rows], self.warp[rows])


def find(pictures: Pictures, seed: int) -> Pairs:
    """Return the pairs that need a closer comparison.

    Args:
        pictures: (N, 64, 64) grey, none of them blank.
        seed: of the sample to which the components are fitted.

    """
    k = min(K, len(pictures) - 1)
    if k < 1:
        none = np.empty(0, np.intp)
        return Pairs(none, none, np.empty(0, bool), np.empty((0, 4)))
    whiten = _Whitening(pictures, seed)
    gallery = whiten(pictures, IDENTITY)
    asked = [(crop, mirrored) for crop in CROPS for mirrored in (False, True) if crop is IDENTITY or not mirrored]
    found = [_pairs(whiten(pictures, crop, mirrored=mirrored), gallery, k, crop, mirrored) for crop, mirrored in asked]
    first, second, mirrored, warp, similarity = (np.concatenate(column) for column in zip(*found, strict=True))
    return _best(Pairs(first, second, mirrored, warp), similarity, k)


def _best(pairs: Pairs, similarity: Single, k: int) -> Pairs:
    """Return each pair once, by its most similar look-up, if it is among the k best of either image."""
    low, high = np.minimum(pairs.first, pairs.second), np.maximum(pairs.first, pairs.second)
    order = np.lexsort((-similarity, high, low))
    _, once = np.unique(np.stack([low, high])[:, order], axis=1, return_index=True)
    order = order[once]
    order = order[np.argsort(-similarity[order], kind="stable")]
    rank = np.minimum(_earlier_equals(pairs.first[order]), _earlier_equals(pairs.second[order]))
    return pairs.chosen(np.sort(order[rank < k]))


def _earlier_equals(values: Ints) -> Ints:
    """Return how many equal values come before each: (n,)."""
    order = np.argsort(values, kind="stable")
    start = np.flatnonzero(np.diff(values[order], prepend=-1))
    number = np.empty(len(values), np.intp)
    number[order] = np.arange(len(values)) - np.repeat(start, np.diff(np.append(start, len(values))))
    return number


def _pairs(
    queries: Single, gallery: Single, k: int, crop: tuple[float, ...], mirrored: bool
) -> tuple[Ints, Ints, npt.NDArray[np.bool_], npt.NDArray[np.float64], Single]:
    second, similarity = neighbours.nearest(queries, gallery, k, itself=True, least=LEAST)
    alike = second >= 0
    first = np.repeat(np.arange(len(queries)), k).reshape(-1, k)[alike]
    sy, ty, sx, tx = crop
    warp = np.tile([1 / sy, -ty / sy, 1 / sx, -tx / sx], (len(first), 1))
    return first, second[alike], np.full(len(first), mirrored), warp, similarity[alike]


class _Whitening:
    """Projects pictures on whitened principal components, fitted to a sample of them."""

    def __init__(self, pictures: Pictures, seed: int) -> None:
        from scipy.linalg import eigh  # noqa: PLC0415

        rows = np.sort(np.random.default_rng(seed).permutation(len(pictures))[:FITTED])
        sample = _coarse(pictures[rows], _reducing(IDENTITY))
        self.centre = sample.mean(axis=0)
        sample = sample.astype(np.float64) - self.centre
        variance, axes = eigh(sample.T @ sample / len(sample))
        ridge = _RIDGE * variance.max() + len(variance) / len(sample) * variance.mean()
        self.scaled = (axes / np.sqrt(variance + ridge + 1e-12)).astype(np.float32)

    def __call__(self, pictures: Pictures, crop: tuple[float, ...], *, mirrored: bool = False) -> Single:
        """Return pictures (n, S, S), or parts of them, as rows of length 1: (n, 64)."""
        down, across = _reducing(crop)
        coarse = _coarse(pictures, (down, across[:, ::-1] if mirrored else across))
        return neighbours.of_length_one((coarse - self.centre) @ self.scaled)


def _reducing(crop: tuple[float, ...]) -> tuple[Single, Single]:
    """Return the matrices (8, 64) that average a part of a picture, downwards and across."""
    sy, ty, sx, tx = crop
    means = np.kron(np.eye(_COARSE, dtype=np.float32), np.full((1, SIDE // _COARSE), _COARSE / SIDE, np.float32))
    down, across = (registration.interpolation(np.array([[s, t]]), SIDE)[0][0] for s, t in ((sy, ty), (sx, tx)))
    return means @ down, means @ across


def _coarse(pictures: Pictures, reducing: tuple[Single, Single]) -> Single:
    """Return pictures (n, 64, 64) as 8 x 8 means with mean 0 and standard deviation 1: (n, 64)."""
    down, across = reducing
    blocks = (pictures[start : start + _BLOCK].astype(np.float32) for start in range(0, len(pictures), _BLOCK))
    small = np.concatenate([down @ (block @ across.T) for block in blocks])
    return normalised(small).reshape(len(pictures), -1)


def shrunk(pictures: Single, side: int) -> Single:
    """Average pictures (n, S, S) down to (n, side, side); S is a multiple of `side`."""
    each = pictures.shape[-1] // side
    means = pictures.reshape(len(pictures), side, each, side, each).mean(axis=(2, 4), dtype=np.float32)
    return np.asarray(means, np.float32)


def normalised(pictures: Single) -> Single:
    """Return pictures (n, S, S) with mean 0 and standard deviation 1; what hardly varies stays small."""
    centred = pictures - pictures.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    return np.asarray(centred / np.maximum(centred.std(axis=(1, 2), keepdims=True), 1))
