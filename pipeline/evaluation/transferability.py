"""Transferability scores: how well features fit a task, before anything is trained on them.

LogME and the H-score only rank backbones; the accuracy of nearest neighbours can be interpreted on its own.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import systems
from pipeline.core.threads import one_thread
from pipeline.evaluation.neighbours import of_length_one

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]

NEIGHBOURS = 5
_BLOCK = 512
"""Rows whose similarities to all others are in memory at a time."""
_LEAST_NOISE = 1e-6
"""Of a 0/1 target: it keeps the evidence finite if the features predict the targets without error."""
_DECIMALS = 6
"""Of the scores; further ones would depend on the type of CPU."""


@dataclass(frozen=True)
class Transferability:
    """Scores of features on the training images."""

    images: int
    """Training images that were scored."""
    training_images: int
    """All training images."""
    logme: float
    """Maximum log evidence per image of a linear model of each class, the mean over classes; larger is better."""
    h_score: float
    """Spread between the classes over that of all images, with shrinkage; from 0 to classes - 1, larger is better."""
    knn_accuracy: float
    """Share of the images whose class is the most frequent one among their nearest neighbours."""
    neighbours: int
    """How many neighbours vote."""
    largest_class: float
    """Share of the most frequent class among the scored images: the accuracy of always naming it."""


def score(X: Floats, targets: Ints, training_images: int, units: Ints | None = None) -> Transferability:
    """Return all scores, to 6 decimals; they are the same on any number of threads.

    Args:
        X: (n, D) features of training images, n at least 2.
        targets: (n,) their classes, as numbers.
        training_images: how many training images there are.
        units: (n,) as in `knn_accuracy`.

    """
    wide = X.astype(np.float64)
    neighbours = min(NEIGHBOURS, len(X) - 1)
    with one_thread():
        found = logme(wide, targets), h_score(wide, targets), knn_accuracy(X, targets, neighbours, units)
    evidence, spread, accuracy = (round(one, _DECIMALS) for one in found)
    return Transferability(
        images=len(X),
        training_images=training_images,
        logme=evidence,
        h_score=spread,
        knn_accuracy=accuracy,
        neighbours=neighbours,
        largest_class=round(float(np.bincount(targets).max() / len(targets)), _DECIMALS),
    )


def logme(X: Floats, targets: Ints) -> float:
    """Return the maximum log evidence per row of linear models of one class against the rest, the mean over classes.

    You et al. 2021, LogME: Practical Assessment of Pre-trained Models for Transfer Learning. A 0/1 target is
    y = X w + noise with w ~ N(0, I / alpha) and noise ~ N(0, I / beta), so that y ~ N(0, I / beta + X X^T / alpha);
    the log density of y is maximised over alpha and beta, here with 1 / beta of at least 1e-6.

    Args:
        X: (n, D) float64; neither centred nor given an intercept, as published.
        targets: (n,) classes, as numbers.

    """
    classes, place = np.unique(targets, return_inverse=True)
    Y = np.eye(len(classes))[place]  # (n, K)
    variance, projections = _spectrum(X, Y)
    rest = np.maximum(Y.sum(axis=0) - projections.sum(axis=0), 0)  # |y|^2 outside the span of the features; y^2 = y
    evidence = [_largest_evidence(len(X), variance, projections[:, k], rest[k]) for k in range(len(classes))]
    return float(np.mean(evidence) / len(X))


def _spectrum(X: Floats, Y: Floats) -> tuple[Floats, Floats]:
    """Return the squared singular values of X = U s V^T, (r,), and (U^T Y)^2, (r, K), from the smaller Gram matrix."""
    n, width = X.shape
    variance, axes = _drop_rounding_errors(*np.linalg.eigh(X @ X.T if n <= width else X.T @ X))
    projections = axes.T @ Y if n <= width else axes.T @ (X.T @ Y) / np.sqrt(variance)[:, None]
    return variance, projections**2


def _drop_rounding_errors(variance: Floats, axes: Floats) -> tuple[Floats, Floats]:
    """Drop eigenvalues (r,) and eigenvectors (d, r) that are within the rounding error of the largest eigenvalue."""
    kept = variance > np.finfo(np.float64).eps * len(axes) * variance.max(initial=0)
    return variance[kept], axes[:, kept]


def _largest_evidence(n: int, variance: Floats, projections: Floats, rest: float) -> float:
    """Maximise the log evidence of one target.

    Given t = alpha / beta, the best noise 1 / beta is y^T (I + X X^T / t)^-1 y / n, where the evidence has its only
    maximum. So one dimension is left: it is searched on a grid, then around the best point. The fixed-point iteration
    of You et al. 2022, Ranking and Tuning Pre-trained Models, reaches a maximum of the same function, but divides zero
    by zero if the features can fit any target.

    Args:
        n: rows.
        variance: (r,) squared singular values.
        projections: (r,) squares of the target's projections on the left singular vectors.
        rest: square of what is left of the target.

    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415

    def evidence(log_ratio: Floats) -> Floats:
        """(T,) -> (T,)."""
        gain = variance / np.exp(log_ratio)[:, None]
        error = rest + (projections / (1 + gain)).sum(axis=1)
        noise = np.maximum(error / n, _LEAST_NOISE)
        return np.asarray(-(n * np.log(2 * np.pi * noise) + error / noise + np.log1p(gain).sum(axis=1)) / 2)

    # From weights that are free in every direction to weights of zero.
    grid = np.log(variance.max(initial=0) or 1.0) + np.log(10) * np.linspace(-14, 6, 81)
    found = evidence(grid)
    best = int(found.argmax())
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    refined = minimize_scalar(lambda at: -evidence(np.array([at]))[0], bounds=around, method="bounded")
    return float(max(found[best], -refined.fun))


def h_score(X: Floats, targets: Ints) -> float:
    """Return the shrinkage H-score: tr(S^-1 (1 - a) B), for S the covariance shrunk by a (Ledoit & Wolf 2004).

    Ibrahim et al. 2021, Newer is not always better: Rethinking transferability metrics, their peculiarities, stability
    and performance. B is the covariance of the class means, each as often as the class has rows; both are divided by n.

    Args:
        X: (n, D) float64.
        targets: (n,) classes, as numbers.

    """
    from sklearn.covariance import ledoit_wolf  # noqa: PLC0415

    shifted = X - X[0]  # constant features are then exactly zero, whatever the rounding of their mean
    covariance, shrinkage = ledoit_wolf(shifted)
    classes, place, count = np.unique(targets, return_inverse=True, return_counts=True)
    means = np.eye(len(classes))[place].T @ shifted / count[:, None] - shifted.mean(axis=0)  # (K, D)
    variance, axes = _drop_rounding_errors(
        *np.linalg.eigh(covariance)
    )  # the inverse, or where there is none the pseudo-inverse
    between = ((means @ axes) ** 2 / variance).sum(axis=1)  # (K,)
    return float((1 - shrinkage) * (count @ between) / len(X))


def knn_accuracy(X: Floats, targets: Ints, neighbours: int, units: Ints | None = None) -> float:
    """Return the share of rows whose class is the most frequent one among the most similar other rows.

    Similarity is the cosine. Of equally similar rows the first counts, of equally frequent classes the smallest
    number. The similarities of as many blocks of rows as there are cores are in memory.

    Args:
        X: (n, D).
        targets: (n,) classes, as numbers from 0.
        neighbours: how many vote, or fewer if there are fewer.
        units: (n,) numbers of units, such as a patient or the copies of an image: rows of one unit do not vote on each
            other, and a row without voters counts as wrong. None: every row is a unit.

    """
    unit = np.arange(len(X)) if units is None else units
    rows = of_length_one(X)

    def right(start: int) -> int:
        block = slice(start, start + _BLOCK)
        similarity = np.round(rows[block] @ rows.T, _DECIMALS)  # copies of one image are equally similar
        similarity[unit[block, None] == unit] = -np.inf
        return _count_right(similarity, targets, neighbours, targets[block])

    with one_thread(), ThreadPoolExecutor(systems.cores()) as pool:
        return sum(pool.map(right, range(0, len(rows), _BLOCK))) / len(rows)


def _count_right(similarity: Floats, targets: Ints, neighbours: int, truth: Ints) -> int:
    """Count the rows of a block, similarity (B, n), whose true class (B,) wins the vote."""
    voters = _most_similar(similarity, neighbours)
    row, voter = np.nonzero(voters & np.isfinite(similarity))
    classes = int(targets.max()) + 1
    votes = np.bincount(row * classes + targets[voter], minlength=len(truth) * classes).reshape(-1, classes)
    return int(((votes.argmax(axis=1) == truth) & (votes.sum(axis=1) > 0)).sum())


def _most_similar(similarity: Floats, neighbours: int) -> npt.NDArray[np.bool_]:
    """Mark the largest entries of every row, the first of equal ones: (B, n), exactly `neighbours` in each row."""
    least = np.partition(similarity, -neighbours, axis=1)[:, [-neighbours]]
    above, equal = similarity > least, similarity == least
    wanted = neighbours - above.sum(axis=1, keepdims=True)
    return np.asarray(above | (equal & (np.cumsum(equal, axis=1) <= wanted)))
