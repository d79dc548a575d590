"""Twins: each image's most similar image in another split, a near-duplicate of it if they are similar enough.

Similarity is the cosine of whitened features: rows of length 1 in their first 512 principal components, or half as many
as there are images, each divided by its spread. A direction that all images of a task share then counts for no more
than one that tells two of them apart, and unlike images come out near 0 whatever the backbone.

Measured on the demo's 2,624 cells (EfficientNet-Lite0, last block; `benchmarks.leaks`), with 100 changed copies of some
put beside them. The threshold 0.55 finds 100% of copies scaled to 0.8, 96% at half the size, 99% brightened by a tenth,
100% saved as JPEG of quality 80, 86% mirrored; but 45% at quality 60, 54% without 1% of each border and none without
2.5%: such a copy lies further from its original than unlike cells lie from each other. Of the cells themselves 260
pairs across splits are as similar, 140 of 655 test images among them; 92% of these stand next to each other in the data
set, and look like neighbouring slices of one crystal. Of the plain cosine, and of the centred one, a threshold with as
few pairs far apart in the data set finds about 30% at half the size and 7% at quality 60.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.projection import Features

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]

COMPONENTS = 512
FITTED = 10_000
"""Rows, drawn at random, that say what the components are."""
MOST_PAIRS = 10**9
"""Similarities that are computed: half a minute on one core. It decides how many images a twin is sought for."""
DECIMALS = 4
_BLOCK = 2048
_LEAST_VARIANCE = 1e-10
"""Of the largest: less is rounding."""


@dataclass(frozen=True)
class Twins:
    """What was found, of N images."""

    row: Ints
    """(N,) the image of another split, and with other bytes, that is most similar; -1 where none was sought."""
    similarity: Floats
    """(N,) float64 to 4 decimals, 0 where none was sought."""
    sought: int
    """Images of validation and test that were compared with all others."""
    judged: int
    """All there are; if more than were sought, the sought ones were drawn at random."""

    @classmethod
    def unsought(cls, images: int) -> "Twins":
        """Return what is known before anybody looks."""
        return cls(np.full(images, -1), np.zeros(images), 0, 0)


def find(X: Features, judged: npt.NDArray[np.bool_], split: Ints, content: Ints, seed: int) -> Twins:
    """Seek the twin of every validation and test image; a training image's is the most similar one of those.

    Memory holds one block of rows, the components of the sought images, and one block of similarities. It runs on one
    thread, and of equally similar images the first one counts, so that the same rows give the same bytes.

    Args:
        X: (N, D) of any float type, such as a mapped file's.
        judged: (N,) whether an image is of validation or test.
        split: (N,) numbers of the splits.
        content: (N,) numbers of the images' bytes: copies of one image are no twins.
        seed: of what is drawn at random.

    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # noqa: PLC0415

    every = np.flatnonzero(judged)
    sought = np.sort(np.random.default_rng(seed).permutation(every)[: max(1, MOST_PAIRS // len(X))])
    best = _Best(len(X))
    with threadpool_limits(1):
        whiten = _whitening(X, seed)
        wanted = whiten(X[sought])
        for rows in _blocks(np.arange(len(X))):
            others, unsought = whiten(X[rows]), ~np.isin(rows, sought)
            for part in _blocks(np.arange(len(sought))):
                queries = sought[part]
                similarity = np.round(wanted[part] @ others.T, DECIMALS)
                alike = (split[queries, None] == split[rows]) | (content[queries, None] == content[rows])
                similarity[alike] = -np.inf
                best.update(queries, rows, similarity)
                best.update(rows[unsought], queries, similarity.T[unsought])
    found = best.row >= 0
    return Twins(best.row, np.round(np.where(found, best.similarity, 0), DECIMALS), len(sought), len(every))


class _Best:
    """The most similar row so far, of each."""

    def __init__(self, rows: int) -> None:
        self.row, self.similarity = np.full(rows, -1), np.full(rows, -np.inf)

    def update(self, rows: Ints, others: Ints, similarity: Floats) -> None:
        """Take (n,) rows' similarities to (m,) others, (n, m), into account."""
        if not similarity.size:
            return
        place = similarity.argmax(axis=1)
        value = similarity[np.arange(len(rows)), place]
        better = value > self.similarity[rows]
        self.row[rows[better]], self.similarity[rows[better]] = others[place[better]], value[better]


def _blocks(rows: Ints) -> list[Ints]:
    return [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]


def _whitening(X: Features, seed: int) -> Callable[[Floats], Floats]:
    """Return what turns rows (n, D) into rows of length 1 in the whitened components: (n, up to 512) float32."""
    from scipy.linalg import eigh  # noqa: PLC0415

    sample = _of_length_one(X[np.sort(np.random.default_rng(seed).permutation(len(X))[:FITTED])]).astype(np.float64)
    centre = sample[0] + (sample - sample[0]).mean(axis=0)  # exact where all rows are equal
    sample -= centre
    width = sample.shape[1]
    number = min(COMPONENTS, len(sample) // 2, width)
    if not number:
        return lambda rows: np.zeros((len(rows), 1), np.float32)
    variance, axes = eigh(sample.T @ sample / len(sample), subset_by_index=(width - number, width - 1))
    kept = variance > _LEAST_VARIANCE * variance.max()
    scaled = (axes[:, kept] / np.sqrt(variance[kept])).astype(np.float32)
    middle = centre.astype(np.float32)
    return lambda rows: _of_length_one((_of_length_one(rows) - middle) @ scaled)


def _of_length_one(rows: Floats) -> Floats:
    wide = rows.astype(np.float32)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.finfo(np.float32).tiny))
