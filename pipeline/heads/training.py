"""Fitting a classifier anywhere in a head, so that its own splits of the rows keep images and groups whole."""

import inspect
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin

from pipeline.data.splits import folds
from pipeline.heads.newton import softmax
from pipeline.heads.types import Classifier, Features, Floats, Ints, Labels

FOLDS = 5
"""For a classifier that cross-validates within itself and does not say in how many folds."""


def fit_classifier(model: Classifier, X: Features, y: Labels, origin: Ints) -> Classifier:
    """Fit a classifier to X (n, D) and labels y (n,), and return it; `origin` (n, 2) holds images and groups.

    If the classifier cross-validates within itself, its `cv` is the number of folds. InputError if a class has too few
    images, or groups, for them.
    """
    classifier = _last(model)
    if "cv" in classifier.get_params(deep=False):
        cv = classifier.cv
        parts = folds.inner(y, origin, getattr(cv, "n_splits", cv or FOLDS), getattr(cv, "random_state", 0))
        classifier.set_params(cv=[(fold.train, fold.held) for fold in parts])
        model.fit(X, y)
        _last(model).set_params(cv=cv)  # so that the saved file does not list the rows of every fold
    else:
        model.fit(X, y, **_origin_argument(model, origin))
    # Several threads would add up a forest's votes in the order in which they finish, so predict on one core.
    return model.set_params(**{key: 1 for key in model.get_params() if key.endswith("n_jobs")})


def _last(model: Classifier) -> Classifier:
    """Return the classifier behind the preprocessing."""
    return _last(model[-1]) if hasattr(model, "steps") else model


def _origin_argument(model: Classifier, origin: Ints) -> dict[str, Ints]:
    """Return the origin as a keyword argument of `fit`, if the classifier, or the last step of a pipeline, takes it."""
    if hasattr(model, "steps"):
        name, last = model.steps[-1]
        return {f"{name}__{key}": value for key, value in _origin_argument(last, origin).items()}
    return {"origin": origin} if "origin" in inspect.signature(model.fit).parameters else {}


class SoftmaxOfScores(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Probabilities of a fitted classifier that only has scores, at temperature 1; decisions do not depend on it."""

    def __init__(self, model: Classifier) -> None:
        self.model = model

    @property
    def classes_(self) -> Labels:
        """The classes, (K,)."""
        return np.asarray(self.model.classes_)

    def predict_proba(self, X: Floats) -> npt.NDArray[np.float64]:
        """Return the softmax of the scores of X (n, D): (n, K)."""
        scores = np.asarray(self.model.decision_function(X), dtype=np.float64)
        both: Any = np.column_stack([-scores, scores]) if scores.ndim == 1 else scores
        return np.asarray(softmax(both, axis=1), dtype=np.float64)
