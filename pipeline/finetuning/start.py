"""The start of the classifier: logistic regression on the frozen network's output (LP-FT, Kumar et al. 2022).

The first gradients of a new classifier distort the pre-trained features; those of a fitted one do not. It is fitted
here, on the averaged output of the last block, and not taken from a head in models/ or from the embeddings file: an
edited head, or another layer in the embeddings, must not rerun fine-tuning.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core.sections import Plan
from pipeline.evaluation.scoring import metrics
from pipeline.finetuning.task import Floats, Task

VALUES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the penalty; the validation split chooses one."""
ITERATIONS = 1000


@dataclass(frozen=True)
class LinearClassifier:
    """A linear classifier on unscaled features."""

    weight: npt.NDArray[np.float64]
    """(K, D)."""
    bias: npt.NDArray[np.float64]
    """(K,)."""
    C: float
    """The value that the validation split chose."""


def logistic(embedded: Floats, task: Task, plan: Plan, metric: str) -> LinearClassifier:
    """Fit the standardised embeddings (N, D) of the training rows for each C; return the best on validation."""
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415  # only plans that start from a head need it
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    features = embedded.astype(np.float64)
    scaler = StandardScaler().fit(features[task.train])
    train, val = scaler.transform(features[task.train]), scaler.transform(features[task.val])
    fitted, scores = [], []
    for C in VALUES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a start need not be an optimum
            one = LogisticRegression(C=C, max_iter=ITERATIONS, class_weight=plan.class_weight)
            fitted.append(one.fit(train, task.targets[task.train]))
        scores.append(metrics.value(metric, task.targets[task.val], one.predict(val), task.classes))
    best = scores.index(max(scores))
    return _folded(VALUES[best], fitted[best], scaler)


def _folded(C: float, fitted: Any, scaler: Any) -> LinearClassifier:  # noqa: ANN401  # scikit-learn has no types
    """Fold the scaler in: w ((x - m) / s) + b = (w / s) x + b - (w / s) m."""
    weight, bias = fitted.coef_, fitted.intercept_
    if len(weight) == 1:  # two classes: the second one's log-odds, which half of it for and half against equal
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scaler.scale_
    return LinearClassifier(weight, bias - weight @ scaler.mean_, C)
