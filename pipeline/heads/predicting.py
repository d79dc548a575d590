"""Predicting with a fitted head: the probabilities of a row depend on that row alone."""

from typing import Any

import numpy as np

from pipeline.core.cost import typical_seconds
from pipeline.core.errors import RefusedError
from pipeline.core.threads import one_thread
from pipeline.heads.types import Classifier, Features, Floats, Probabilities

BLOCK = 256
"""Rows in every batch: a fixed number, so that a prediction does not depend on how many other images there are."""
PREDICTION_TOLERANCE = 1e-9
"""The largest difference between two predictions of the same row. The last bits of a matrix product depend on its
shape, the row's place in it, the number of threads and the processor. With BLOCK rows in double precision on one
thread, the largest difference measured is 2e-14, between processors (docs/predict.md)."""


def predict(model: Classifier, X: Features) -> Probabilities:
    """Return class probabilities (n, K) of X (n, D), columns in the order of the model's `classes_`.

    A row's probabilities are the same within PREDICTION_TOLERANCE, whatever the other rows and the processor. Only
    heads whose output changes in steps may differ by more, where a value equals a threshold to 15 digits: trees behind
    scaling or components, nearest neighbours at equal distances, a steep step of isotonic calibration.

    Raises:
        RefusedError: if the head returns probabilities that are not numbers.

    """
    with one_thread():
        parts = [_predict_batch(model, X[start : start + BLOCK]) for start in range(0, len(X), BLOCK)]
    probability = np.concatenate([np.empty((0, len(model.classes_))), *parts])
    if not np.isfinite(probability).all():
        raise RefusedError("gives probabilities that are not numbers; do the features differ from one another at all?")
    return np.asarray(probability / probability.sum(axis=1, keepdims=True))  # float32 sums are only close to one


def prediction_time(model: Classifier, X: Features) -> dict[str, Any]:
    """Time the predictions of X (n, D) by the head alone, without the frozen pass."""
    seconds = typical_seconds(lambda: predict(model, X))
    return {"seconds_per_1000": 1000 * seconds / len(X), "images": len(X), "runtime": "scikit-learn"}


def _predict_batch(model: Classifier, rows: Floats) -> Probabilities:
    """Return the probabilities (n, K) of at most BLOCK rows (n, D), padded to BLOCK with copies of the last one."""
    filled = np.concatenate([rows, np.repeat(rows[-1:], BLOCK - len(rows), axis=0)])
    return np.asarray(model.predict_proba(filled.astype(np.float64)), dtype=np.float64)[: len(rows)]
