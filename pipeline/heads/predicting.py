"""Predicting with a fitted head: the probabilities of a row depend on that row alone."""

from typing import Any

import numpy as np

from pipeline.core.cost import typical_seconds
from pipeline.core.errors import RefusedError
from pipeline.core.threads import one_thread
from pipeline.heads.types import Classifier, Features, Floats, Probabilities

BLOCK = 256
"""Rows in every batch: always as many, so that an image's prediction does not depend on how many others there are."""
SAME = 1e-9
"""The most by which a probability may differ between two predictions of one row. The last bits of a matrix product
depend on its shape, a row's place in it, the number of threads and the processor. With BLOCK rows in double precision
on one thread, the largest difference measured is 2e-14, between processors (docs/predict.md)."""


def predict(model: Classifier, X: Features) -> Probabilities:
    """Return class probabilities (n, K) of X (n, D), columns in the order of the model's `classes_`.

    A row's probabilities are the same within SAME, whatever the other rows, their number and the processor. Only a head
    whose output changes in steps may differ by more, where a value equals a threshold to 15 digits: trees after scaling
    or components, nearest neighbours at equal distances, a steep step of isotonic calibration.

    Raises:
        InputError: if the head gives something that is not a probability.

    """
    with one_thread():
        parts = [_predicted(model, X[start : start + BLOCK]) for start in range(0, len(X), BLOCK)]
    probability = np.concatenate([np.empty((0, len(model.classes_))), *parts])
    if not np.isfinite(probability).all():
        raise RefusedError("gives probabilities that are not numbers; do the features differ from one another at all?")
    return np.asarray(probability / probability.sum(axis=1, keepdims=True))  # in float32 the sum is only close to one


def timed(model: Classifier, X: Features) -> dict[str, Any]:
    """Return how long the head alone takes for X (n, D); the frozen pass before it is timed elsewhere."""
    seconds = typical_seconds(lambda: predict(model, X))
    return {"seconds_per_1000": 1000 * seconds / len(X), "images": len(X), "runtime": "scikit-learn"}


def _predicted(model: Classifier, rows: Floats) -> Probabilities:
    """Return the probabilities (n, K) of at most BLOCK rows (n, D), padded to BLOCK with copies of the last one."""
    filled = np.concatenate([rows, np.repeat(rows[-1:], BLOCK - len(rows), axis=0)])
    return np.asarray(model.predict_proba(filled.astype(np.float64)), dtype=np.float64)[: len(rows)]
