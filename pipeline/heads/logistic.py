"""Multinomial logistic regression over many values of C for the price of a few; the solver is in `newton`."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from pipeline.heads.newton import SWEEP, Problem, softmax
from pipeline.heads.types import Floats

Labels = npt.NDArray[Any]
__all__ = ["SWEEP", "Logistic"]


class Logistic(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Logistic regression, L2 penalty, Newton's method.

    Args:
        C: inverse strength of the penalty.
        max_iter: the most steps of Newton's method for one value of C.
        tol: stop where the norm of the gradient is at most this share of the norm of the penalty's gradient.
        class_weight: None, or "balanced" for weights inverse to the class frequencies.

    """

    classes_: Labels
    n_features_in_: int
    coef_: Floats
    """(K, D); of two classes only the second, (1, D)."""
    intercept_: Floats
    """(K,), or (1,)."""

    def __init__(
        self, *, C: float = 1.0, max_iter: int = 100, tol: float = 1e-3, class_weight: str | None = None
    ) -> None:
        self.C = C
        self.max_iter = max_iter
        self.tol = tol
        self.class_weight = class_weight

    def fit(self, X: Floats, y: Labels) -> Self:
        """Fit X (n, D) with labels y (n,)."""
        (fitted,) = self.path(X, y, [self.C])
        self.classes_, self.n_features_in_ = fitted.classes_, fitted.n_features_in_
        self.coef_, self.intercept_ = fitted.coef_, fitted.intercept_
        return self

    def path(self, X: Floats, y: Labels, values: Sequence[float]) -> Iterator[Self]:
        """Yield one fitted classifier for each value of C, in ascending order of the values."""
        for C in values:
            if not C > 0:
                raise ValueError(f"C: got {C}, expected a number above 0")
        for name in ("max_iter", "tol"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected a number above 0")
        X, y = validate_data(self, X, y, dtype=[np.float32, np.float64])
        check_classification_targets(y)
        classes = np.unique(y)
        if len(classes) < 2:
            raise ValueError(f"got the single class {classes[0]!r}, expected at least two")
        problem = Problem(X, np.searchsorted(classes, y), compute_sample_weight(self.class_weight, y))
        for C, coef, intercept, converged in problem.path(values, self.max_iter, self.tol):
            if not converged:
                warnings.warn(f"C={C:g}: stopped at max_iter={self.max_iter}", ConvergenceWarning, stacklevel=3)
            fitted = type(self)(**{**self.get_params(), "C": C})
            fitted.classes_, fitted.n_features_in_ = classes, X.shape[1]
            fitted.coef_, fitted.intercept_ = coef, intercept
            yield fitted

    def decision_function(self, X: Floats) -> Floats:
        """Return the logits of X (n, D): (n, K), or of two classes the second's, (n,)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        logits = X.astype(np.float64) @ self.coef_.T + self.intercept_
        return np.asarray(logits[:, 0] if len(self.classes_) == 2 else logits)

    def predict_proba(self, X: Floats) -> npt.NDArray[np.float64]:
        """Return the class probabilities of X (n, D): (n, K), columns in the order of `classes_`."""
        logits = self.decision_function(X)
        both = np.column_stack([np.zeros(len(logits)), logits]) if logits.ndim == 1 else logits
        return np.asarray(softmax(both, axis=1), dtype=np.float64)

    def predict(self, X: Floats) -> npt.NDArray[np.str_]:
        """Return the most probable class of each row of X (n, D): (n,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
