"""Ensembles of heads; those of scikit-learn know neither groups nor views."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone

from pipeline.data.splits import folds
from pipeline.heads.training import fit_classifier
from pipeline.heads.types import Classifier, Floats, Ints, Labels, Probabilities

Members = Sequence[tuple[str, Classifier]]


class _Ensemble(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Named members, each fitted on all rows."""

    estimators: Members
    estimators_: list[Classifier]
    classes_: Labels

    def _fit_members(self, X: Floats, y: Labels, origin: Ints) -> None:
        self.classes_, self.n_features_in_ = np.unique(y), X.shape[1]
        self.estimators_ = [fit_classifier(clone(member), X, y, origin) for _, member in self.estimators]

    def predict(self, X: Floats) -> Labels:
        """Return the most probable class of each row of X (n, D): (n,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])


class Voting(_Ensemble):
    """Mean of the members' probabilities; `estimators` are their names and unfitted classifiers."""

    def __init__(self, estimators: Members) -> None:
        self.estimators = estimators

    def fit(self, X: Floats, y: Labels, origin: Ints | None = None) -> Self:
        """Fit every member on X (n, D), y (n,); `origin` (n, 2) holds the image and the group of every row."""
        self._fit_members(X, y, folds.apart(len(y)) if origin is None else origin)
        return self

    def predict_proba(self, X: Floats) -> Probabilities:
        """Return (n, K)."""
        return np.asarray(np.mean([member.predict_proba(X) for member in self.estimators_], axis=0))


class Stacking(_Ensemble):
    """A classifier on the members' cross-validated probabilities (Wolpert 1992).

    There are fewer than `folds` folds where a class has fewer groups; `random_state` is their seed.
    """

    def __init__(
        self, estimators: Members, final_estimator: Classifier, *, folds: int = 5, random_state: int | None = None
    ) -> None:
        self.estimators = estimators
        self.final_estimator = final_estimator
        self.folds = folds
        self.random_state = random_state

    def fit(self, X: Floats, y: Labels, origin: Ints | None = None) -> Self:
        """Fit every member on X (n, D), y (n,); `origin` (n, 2) holds the image and the group of every row."""
        origin = folds.apart(len(y)) if origin is None else origin
        self._fit_members(X, y, origin)
        held_out = np.empty((len(self.estimators), len(y), len(self.classes_)))
        for fold in folds.inner(y, origin, self.folds, 0 if self.random_state is None else self.random_state):
            for number, (_, member) in enumerate(self.estimators):
                fitted = fit_classifier(clone(member), X[fold.train], y[fold.train], origin[fold.train])
                held_out[number, fold.held] = self._probabilities(fitted, X[fold.held])
        self.final_estimator_ = clone(self.final_estimator).fit(self._side_by_side(held_out), y)
        return self

    def predict_proba(self, X: Floats) -> Probabilities:
        """Return (n, K)."""
        probabilities = np.stack([self._probabilities(member, X) for member in self.estimators_])
        return np.asarray(self.final_estimator_.predict_proba(self._side_by_side(probabilities)))

    def _probabilities(self, fitted: Classifier, X: Floats) -> Probabilities:
        """Return probabilities of all classes, (n, K): zero for those that a fold lacks."""
        probability = np.zeros((len(X), len(self.classes_)))
        probability[:, np.searchsorted(self.classes_, fitted.classes_)] = fitted.predict_proba(X)
        return probability

    def _side_by_side(self, probabilities: Probabilities) -> Probabilities:
        """Put probabilities (M, n, K) into columns (n, M K); of two classes the second is enough."""
        columns = probabilities[:, :, 1:] if probabilities.shape[2] == 2 else probabilities
        return np.concatenate(list(columns), axis=1)
