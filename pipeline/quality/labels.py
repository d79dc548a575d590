"""Suspected label errors: confident learning on predictions that a fast classifier makes of images it has not seen.

All images of all splits are looked at, those of test as well: what is wrong with the data is no choice between models,
and no model is kept.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core.threads import one_thread
from pipeline.heads.logistic import Logistic

Ints = npt.NDArray[np.integer[Any]]
Probabilities = npt.NDArray[np.float64]

FOLDS = 5
C = 10.0
"""Of the logistic regression, on components whose variances sum to 1."""
TOLERANCE = 1e-3
MOST_ALIKE = 2
"""Of ten nearest images: with more of the given label, the label is usual there."""


def out_of_fold(
    components: npt.NDArray[np.float32], target: Ints, together: Sequence[object], seed: int
) -> Probabilities:
    """Return each image's class probabilities by a logistic regression that was fitted on other images: (N, K).

    Args:
        components: (N, R).
        target: (N,) numbers of the classes, 0 to K - 1.
        together: N names of what stays in one fold: copies of one image, or images of one group.
        seed: of the folds.

    """
    fold = folds(target, together, seed)
    probability = np.zeros((len(target), int(target.max()) + 1))

    def fit(number: int) -> None:
        held = np.flatnonzero(fold == number)
        known = np.flatnonzero(fold != number)
        classes = np.unique(target[known])
        if len(classes) == 1:  # nothing to learn
            probability[np.ix_(held, classes)] = 1
        elif len(held) and len(known):
            fitted = Logistic(C=C, tol=TOLERANCE).fit(components[known], target[known])
            probability[np.ix_(held, fitted.classes_)] = fitted.predict_proba(components[held])

    with one_thread(), ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fit, range(FOLDS)))
    return probability


def folds(target: Ints, together: Sequence[object], seed: int) -> Ints:
    """Deal images to folds (N,): each class evenly, what belongs together into one; few images leave folds without."""
    _, first, unit = np.unique(np.array(together, dtype=str), return_index=True, return_inverse=True)
    drawn = np.random.default_rng(seed).permutation(len(first))
    order = drawn[np.argsort(target[first][drawn], kind="stable")]
    of_unit = np.empty(len(first), np.intp)
    of_unit[order] = np.arange(len(first)) % FOLDS
    return np.asarray(of_unit[unit])


def suspected(target: Ints, probability: Probabilities, nearest: Ints) -> Ints:
    """Return the images whose label is probably wrong, the most suspicious one first.

    Confident learning (Northcutt, Jiang & Chuang 2021) counts how many labels are wrong, by images that are more
    probable to be of another class than that class's own images are on average; that many, of the lowest probability of
    the given label, are taken (cleanlab's `low_self_confidence`). Of these the ones remain that have at most two images
    with their label among the ten nearest: a second opinion that halves the false alarms.

    Args:
        target: (N,) given classes.
        probability: (N, K) out of fold.
        nearest: (N, k) the nearest other images.

    """
    from cleanlab.filter import find_label_issues  # type: ignore[import-untyped]  # noqa: PLC0415

    if probability.shape[1] < 2:
        return np.empty(0, np.intp)
    suspected = find_label_issues(target, probability, filter_by="low_self_confidence", n_jobs=1)
    alike = (target[nearest] == target[:, None]).sum(axis=1)
    rows = np.flatnonzero(suspected & (alike <= MOST_ALIKE) & (probability.argmax(axis=1) != target))
    return np.asarray(rows[np.argsort(probability[rows, target[rows]], kind="stable")])
