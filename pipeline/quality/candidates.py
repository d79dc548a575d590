"""Candidates: for each image the others whose pictures, as they are, mirrored or cropped a little, are most like it.

A picture is reduced to 8 x 8 means, brought to mean 0 and spread 1, and to its whitened principal components: a
direction that all images of a task share then counts for no more than one that tells two of them apart. An image is
looked up as it is, mirrored, and without 3% of each border or 5% of one: there such a copy of it lies. Of 100 copies of
each kind among the demo's 2,624 cells, and among 6,000 of Fashion-MNIST, that puts all within the nearest three; looked
up only as they are, cropped copies are not even among the nearest eight in 4 of 10 cases, and whitened embeddings miss
2 of 3 of them.
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
"""Candidates of each image, in each way of looking it up and in all."""
LEAST = 0.7
"""Similarity, a cosine, that a candidate has; of the copies in docs/quality.md all but a few have 0.93 and more."""
FITTED = 10_000
"""Pictures, drawn at random, that say what the components are."""
_COARSE = 8
_BLOCK = 1024
_RIDGE = 1e-3
"""Of the largest variance: what hardly varies is not blown up; of few pictures, nothing is."""

IDENTITY = (1.0, 0.0, 1.0, 0.0)
# As an image is looked up: the warp from what is left of it to the whole.
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
    """(P,) whether the second looks like the first in a mirror."""
    warp: npt.NDArray[np.float64]
    """(P, 4) from the first to the second, roughly."""

    def chosen(self, rows: Ints | npt.NDArray[np.bool_]) -> "Pairs":
        """Return some of the pairs."""
        return Pairs(self.first[rows], self.second[rows], self.mirrored[rows], self.warp[rows])


def find(pictures: Pictures, seed: int) -> Pairs:
    """Return the pairs that are worth a closer look.

    Args:
        pictures: (N, 64, 64) grey, none of them blank.
        seed: of the drawing of pictures that say what the components are.

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
    """Return each pair once, as it is most similar, if it is among the k best of one of its images."""
    low, high = np.minimum(pairs.first, pairs.second), np.maximum(pairs.first, pairs.second)
    order = np.lexsort((-similarity, high, low))
    _, once = np.unique(np.stack([low, high])[:, order], axis=1, return_index=True)
    order = order[once]
    order = order[np.argsort(-similarity[order], kind="stable")]
    rank = np.minimum(_occurrence(pairs.first[order]), _occurrence(pairs.second[order]))
    return pairs.chosen(np.sort(order[rank < k]))


def _occurrence(values: Ints) -> Ints:
    """Return how many equal values stand before each: (n,)."""
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
    """What turns pictures into their whitened principal components, as a sample of them has these."""

    def __init__(self, pictures: Pictures, seed: int) -> None:
        from scipy.linalg import eigh  # noqa: PLC0415

        drawn = np.sort(np.random.default_rng(seed).permutation(len(pictures))[:FITTED])
        sample = _coarse(pictures[drawn], _reducing(IDENTITY))
        self.centre = sample.mean(axis=0)
        sample = sample.astype(np.float64) - self.centre
        variance, axes = eigh(sample.T @ sample / len(sample))
        unsure = _RIDGE * variance.max() + len(variance) / len(sample) * variance.mean()
        self.scaled = (axes / np.sqrt(variance + unsure + 1e-12)).astype(np.float32)

    def __call__(self, pictures: Pictures, crop: tuple[float, ...], *, mirrored: bool = False) -> Single:
        """Return pictures (n, S, S), or parts of them, as rows of length 1: (n, 64)."""
        down, across = _reducing(crop)
        coarse = _coarse(pictures, (down, across[:, ::-1] if mirrored else across))
        return neighbours.of_length_one((coarse - self.centre) @ self.scaled)


def _reducing(crop: tuple[float, ...]) -> tuple[Single, Single]:
    """Return the matrices (8, 64) that make means of a part of a picture, downwards and across."""
    sy, ty, sx, tx = crop
    means = np.kron(np.eye(_COARSE, dtype=np.float32), np.full((1, SIDE // _COARSE), _COARSE / SIDE, np.float32))
    down, across = (registration.interpolation(np.array([[s, t]]), SIDE)[0][0] for s, t in ((sy, ty), (sx, tx)))
    return means @ down, means @ across


def _coarse(pictures: Pictures, reducing: tuple[Single, Single]) -> Single:
    """Return pictures (n, 64, 64) as 8 x 8 means with mean 0 and spread 1: (n, 64)."""
    down, across = reducing
    blocks = (pictures[start : start + _BLOCK].astype(np.float32) for start in range(0, len(pictures), _BLOCK))
    small = np.concatenate([down @ (block @ across.T) for block in blocks])
    return normalised(small).reshape(len(pictures), -1)


def shrunk(pictures: Single, side: int) -> Single:
    """Return the means of pictures (n, S, S) in side x side squares, S a multiple of it."""
    each = pictures.shape[-1] // side
    means = pictures.reshape(len(pictures), side, each, side, each).mean(axis=(2, 4), dtype=np.float32)
    return np.asarray(means, np.float32)


def normalised(pictures: Single) -> Single:
    """Return pictures (n, S, S) with mean 0 and standard deviation 1; what hardly varies stays small."""
    centred = pictures - pictures.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    return np.asarray(centred / np.maximum(centred.std(axis=(1, 2), keepdims=True), 1))
