"""Fitting a classifier, wherever in a head it stands: what it splits of its rows, it splits by image and group."""

import inspect
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin

from pipeline.data.splits import folds
from pipeline.heads.types import Classifier, Features, Floats, Ints, Labels

FOLDS = 5
"""Of a classifier's own, where it does not say how many."""


def trained(model: Classifier, X: Features, y: Labels, origin: Ints) -> Classifier:
    """Fit a classifier to X (n, D) and labels y (n,), and return it.

    Args:
        model: unfitted. One that cross-validates within itself does so in as many folds as its `cv` says.
        X: features.
        y: labels.
        origin: (n, 2) the image and the group of every row.

    Raises:
        InputError: if a class has too few images, or groups, for the folds.

    """
    splitting = _last(model)
    if "cv" in splitting.get_params(deep=False):
        asked = splitting.cv
        parts = folds.inner(y, origin, getattr(asked, "n_splits", asked or FOLDS), getattr(asked, "random_state", 0))
        splitting.set_params(cv=[(fold.train, fold.held) for fold in parts])
        model.fit(X, y)
        _last(model).set_params(cv=asked)  # what is saved need not hold every fold's rows
    else:
        model.fit(X, y, **_asked_for(model, origin))
    # Threads add up a forest's votes in the order they finish: predict on one core.
    return model.set_params(**{key: 1 for key in model.get_params() if key.endswith("n_jobs")})


def _last(model: Classifier) -> Classifier:
    """Return the classifier itself, behind its preprocessing."""
    return _last(model[-1]) if hasattr(model, "steps") else model


def _asked_for(model: Classifier, origin: Ints) -> dict[str, Ints]:
    """Return the origin by the name under which a classifier, or the last step of a pipeline, takes it."""
    if hasattr(model, "steps"):
        name, last = model.steps[-1]
        return {f"{name}__{key}": value for key, value in _asked_for(last, origin).items()}
    return {"origin": origin} if "origin" in inspect.signature(model.fit).parameters else {}


class Scores(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A fitted classifier that has scores only, as if its temperature were 1: it decides as under any other.

    Args:
        model: fitted.

    """

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
        exponentials = np.exp(both - both.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
