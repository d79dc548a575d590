"""Suspected label errors, by confident learning on a fast classifier's out-of-fold predictions.

Images of all splits are checked, including test: finding errors in the data chooses no model, and no model is kept.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import systems
from pipeline.core.threads import one_thread
from pipeline.heads.logistic import Logistic

Ints = npt.NDArray[np.integer[Any]]
Probabilities = npt.NDArray[np.float64]

FOLDS = 5
C = 10.0
"""Of the logistic regression, on components whose variances sum to 1."""
TOLERANCE = 1e-3
MOST_ALIKE = 2
"""Of the ten nearest images, those with the given label: if there are more, they support it."""


LEAST_AGREEMENT = 0.5
"""Cohen's kappa of classifier and labels below which labels cannot be judged: in simulations with 1 to 5% wrong labels
(docs/quality.md), 54 to 88% of the listed ones were right just below it, and up to 86% of all images were listed."""


def agreement(target: Ints, probability: Probabilities) -> float:
    """Return Cohen's kappa (1960) of the labels and the likeliest classes: 0 is chance, such as one class for all.

    Args:
        target: (N,) given classes.
        probability: (N, K) out of fold.

    """
    likeliest, classes = probability.argmax(axis=1), probability.shape[1]
    of_label, of_classifier = (np.bincount(one, minlength=classes) / len(target) for one in (target, likeliest))
    chance = float(of_label @ of_classifier)
    return float(((likeliest == target).mean() - chance) / (1 - chance)) if chance < 1 else 0.0


def out_of_fold(
    components: npt.NDArray[np.float32], target: Ints, together: Sequence[object], seed: int
) -> Probabilities:
    """Return each image's class probabilities from a logistic regression fitted to other images: (N, K).

    Args:
        components: (N, R).
        target: (N,) numbers of the classes, 0 to K - 1.
        together: (N,) names: images with the same name, copies or members of a group, stay in one fold.
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

    with one_thread(), ThreadPoolExecutor(systems.cores()) as pool:
        list(pool.map(fit, range(FOLDS)))
    return probability


def folds(target: Ints, together: Sequence[object], seed: int) -> Ints:
    """Return each image's fold (N,): classes are spread evenly, images with one name share a fold.

    Unlike `splits.folds`, this accepts classes with fewer images than folds.
    """
    _, first, unit = np.unique(np.array(together, dtype=str), return_index=True, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(first))
    order = shuffled[np.argsort(target[first][shuffled], kind="stable")]
    of_unit = np.empty(len(first), np.intp)
    of_unit[order] = np.arange(len(first)) % FOLDS
    return np.asarray(of_unit[unit])


def suspected(target: Ints, probability: Probabilities, nearest: Ints) -> Ints:
    """Return the images whose label is probably wrong, the most suspicious one first.

    Confident learning (Northcutt, Jiang & Chuang 2021) estimates how many labels are wrong: it counts the images whose
    probability of another class exceeds the average of that class's own images. So many images are taken, those with
    the lowest probability of their label (cleanlab's `low_self_confidence`). Of these remain the images with at most
    two of their label among the ten nearest: this second opinion halves the false alarms.

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
