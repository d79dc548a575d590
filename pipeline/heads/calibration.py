"""Calibration of probabilities on validation images, by scikit-learn's calibrators."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from pipeline.core.errors import RefusedError
from pipeline.data.splits import folds
from pipeline.evaluation.scoring import metrics
from pipeline.evaluation.scoring.outcomes import Outcomes
from pipeline.heads.types import Classifier, Floats, Ints, Labels, Probabilities

SCORES = ("log_loss", "brier", "calibration_error")
"""Metrics of probabilities, which calibration is to lower."""
FOLDS = 5
"""Parts of the validation images; each part is calibrated by the others."""


class Uncalibrated(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A classifier whose features are already probabilities; scikit-learn's calibrators need one to wrap."""

    def fit(self, probability: Probabilities, y: Labels) -> Self:
        """Learn the names of the classes: the columns of `probability` (n, K), in sorted order."""
        self.n_features_in_, self.classes_ = probability.shape[1], np.unique(y)
        return self

    def predict_proba(self, probability: Probabilities) -> Probabilities:
        """Return the features, (n, K)."""
        return probability

    def predict(self, probability: Probabilities) -> Labels:
        """Return the most probable class of each row of (n, K): (n,)."""
        return np.asarray(self.classes_[probability.argmax(axis=1)])


class Calibrated(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A fitted classifier, features -> probabilities, followed by a fitted calibrator of these, (n, K) -> (n, K)."""

    def __init__(self, model: Classifier, calibrator: Classifier) -> None:
        self.model = model
        self.calibrator = calibrator

    @property
    def classes_(self) -> Labels:
        """The classes, (K,), in the order of the columns."""
        return np.asarray(self.model.classes_)

    def predict_proba(self, X: Floats) -> Probabilities:
        """Return calibrated probabilities of X (n, D): (n, K)."""
        return np.asarray(self.calibrator.predict_proba(np.asarray(self.model.predict_proba(X), dtype=np.float64)))

    def predict(self, X: Floats) -> Labels:
        """Return the most probable class of each row of X (n, D): (n,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])


def fit_calibrator(method: str, probability: Probabilities, y: Labels) -> Classifier:
    """Fit "temperature" (Guo et al. 2017), "sigmoid" (Platt 1999) or "isotonic" (Zadrozny & Elkan 2002)."""
    from sklearn.calibration import CalibratedClassifierCV  # noqa: PLC0415
    from sklearn.frozen import FrozenEstimator  # noqa: PLC0415

    everything = np.arange(len(y))
    fitted = FrozenEstimator(Uncalibrated().fit(probability, y))
    calibrator = CalibratedClassifierCV(fitted, method=method, cv=[(everything, everything)]).fit(probability, y)
    return calibrator.set_params(cv=None)  # so that the saved file does not list every row


def cross_calibrate(
    method: str, probability: Probabilities, y: Labels, seed: int, origin: Ints | None = None
) -> Probabilities:
    """Calibrate each row (n, K) by a calibrator fitted on other groups, so that no row is scored on its own label.

    `origin` (n, 2) holds the image and the group of every row; without it, each row is an image without a group.
    """
    origin, names = folds.apart(len(y)) if origin is None else origin, np.unique(y)
    groups = [len(np.unique(origin[y == name, 1])) for name in names]
    if min(groups) < 2 or len(names) < probability.shape[1]:
        few = [f"{np.sum(y == name)} of {name!s}" for name, number in zip(names, groups, strict=True) if number < 2]
        raise RefusedError(
            f"calibrate: {method} needs at least 2 validation images of each of {probability.shape[1]} classes, from "
            f"two groups where there are groups; got {', '.join(few)}"
        )
    calibrated = np.empty_like(probability)
    for fold in folds.inner(y, origin, FOLDS, seed):
        calibrator = fit_calibrator(method, probability[fold.train], y[fold.train])
        calibrated[fold.held] = calibrator.predict_proba(probability[fold.held])
    return calibrated


def scores(probability: Probabilities, y: Labels, classes: Labels) -> Mapping[str, Any]:
    """Return expected calibration error, Brier score and log-loss of probabilities (n, K)."""
    outcomes = Outcomes.of_probabilities(np.searchsorted(classes, y), probability)
    once = np.ones((1, len(y)))
    return {name: float(metrics.METRICS[name](once, outcomes)[0]) for name in SCORES}
