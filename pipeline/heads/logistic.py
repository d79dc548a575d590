"""Multinomial logistic regression over many values of C at the price of a few; `newton` is how."""

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

from pipeline.heads.newton import SWEEP, Matrix, Problem, softmax

Labels = npt.NDArray[Any]
__all__ = ["SWEEP", "Logistic"]


class Logistic(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Logistic regression, L2 penalty, Newton's method.

    Args:
        C: inverse strength of the penalty.
        max_iter: steps of Newton's method, for one value of C.
        tol: norm of the objective's gradient at which to stop, as a share of that of the penalty's part.
        class_weight: None, or "balanced" for weights inverse to the classes' frequencies.

    """

    classes_: Labels
    n_features_in_: int
    coef_: Matrix
    """(K, D); (1, D) of the second class where there are two."""
    intercept_: Matrix
    """(K,), or (1,)."""

    def __init__(
        self, *, C: float = 1.0, max_iter: int = 100, tol: float = 1e-3, class_weight: str | None = None
    ) -> None:
        self.C = C
        self.max_iter = max_iter
        self.tol = tol
        self.class_weight = class_weight

    def fit(self, X: Matrix, y: Labels) -> Self:
        """Fit X (n, D) with labels y (n,)."""
        (fitted,) = self.path(X, y, [self.C])
        self.classes_, self.n_features_in_ = fitted.classes_, fitted.n_features_in_
        self.coef_, self.intercept_ = fitted.coef_, fitted.intercept_
        return self

    def path(self, X: Matrix, y: Labels, values: Sequence[float]) -> Iterator[Self]:
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

    def decision_function(self, X: Matrix) -> Matrix:
        """Return the logits of X (n, D): (n, K), or (n,) of the second class where there are two."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        logits = X.astype(np.float64) @ self.coef_.T + self.intercept_
        return np.asarray(logits[:, 0] if len(self.classes_) == 2 else logits)

    def predict_proba(self, X: Matrix) -> npt.NDArray[np.float64]:
        """Return the class probabilities of X (n, D): (n, K), columns in the order of `classes_`."""
        logits = self.decision_function(X)
        both = np.column_stack([np.zeros(len(logits)), logits]) if logits.ndim == 1 else logits
        return np.asarray(softmax(both, axis=1), dtype=np.float64)

    def predict(self, X: Matrix) -> npt.NDArray[np.str_]:
        """Return the most probable class of each row of X (n, D): (n,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
