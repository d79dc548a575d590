"""Multinomial logistic regression over many values of C at the price of a few.

The objective is scikit-learn's: C * sum of log-losses + ||W||^2 / 2, intercept free. What makes a sweep fast:

- Features are centred (exact, for the intercept is free) and rotated once to their principal axes, where the Hessian
  is near a diagonal: curvature x variance + 1 / (C n). Dividing by its root leaves L-BFGS a well-conditioned problem
  (a Jacobi preconditioner in the eigenbasis; Nocedal & Wright 2006, ch. 5.1 and 7.2).
- Fewer rows than features leave directions without variance; the penalty sets those weights to zero, so they are not
  computed.
- The values of C are solved in ascending order, each from the solution of the one before.
"""

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

Matrix = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[Any]

SWEEP = tuple(float(f"{C:.4g}") for C in np.logspace(-6, 5, 45))
"""The published probe protocol's values (DINOv2, Oquab et al. 2023; ssl-transfer, Ericsson et al. 2021)."""
_BLOCK = 4096
"""Rows held in double precision at a time."""


class Logistic(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Logistic regression, L2 penalty, L-BFGS.

    Args:
        C: inverse strength of the penalty.
        max_iter: of L-BFGS, for one value of C.
        tol: largest entry of the preconditioned gradient of the mean loss at which to stop.
        class_weight: None, or "balanced" for weights inverse to the classes' frequencies.

    """

    classes_: Labels
    n_features_in_: int
    coef_: Matrix
    """(K, D); (1, D) of the second class where there are two."""
    intercept_: Matrix
    """(K,), or (1,)."""

    def __init__(
        self, *, C: float = 1.0, max_iter: int = 1000, tol: float = 3e-4, class_weight: str | None = None
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
        problem = _Problem(X, np.searchsorted(classes, y), compute_sample_weight(self.class_weight, y))
        for C in sorted(values):
            coef, intercept = problem.solve(C, self.max_iter, self.tol)
            fitted = type(self)(**{**self.get_params(), "C": C})
            fitted.classes_, fitted.n_features_in_ = classes, X.shape[1]
            fitted.coef_, fitted.intercept_ = coef, intercept
            yield fitted

    def decision_function(self, X: Matrix) -> Matrix:
        """Return the logits of X (n, D): (n, K), or (n,) of the second class where there are two."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        logits = X @ self.coef_.T.astype(X.dtype) + self.intercept_
        return np.asarray(logits[:, 0] if len(self.classes_) == 2 else logits)

    def predict_proba(self, X: Matrix) -> npt.NDArray[np.float64]:
        """Return the class probabilities of X (n, D): (n, K), columns in the order of `classes_`."""
        logits = self.decision_function(X).astype(np.float64)
        both = np.column_stack([np.zeros(len(logits)), logits]) if logits.ndim == 1 else logits
        return np.asarray(_softmax(both), dtype=np.float64)

    def predict(self, X: Matrix) -> npt.NDArray[np.str_]:
        """Return the most probable class of each row of X (n, D): (n,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])


def _softmax(logits: Matrix) -> Matrix:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


class _Problem:
    """The data in its principal axes, and the last solution: n rows, r axes, K columns of weights (1 for two classes).

    All sums over rows are weighted and divided by the sum of the weights.
    """

    def __init__(self, X: Matrix, target: npt.NDArray[np.intp], weight: Matrix) -> None:
        classes = int(target.max()) + 1
        self.total = float(weight.sum())
        self.weight = (weight / self.total).astype(X.dtype)[:, None]  # (n, 1)
        one_hot = np.eye(classes, dtype=X.dtype)[target]
        self.two = classes == 2
        self.one_hot = one_hot[:, 1:] if self.two else one_hot  # (n, K)
        self.mean = (self.weight * X).sum(axis=0, dtype=np.float64).astype(X.dtype)
        self.axes, self.variance, self.Z = _rotated(X - self.mean, self.weight)
        share = np.clip((self.weight * one_hot).sum(axis=0, dtype=np.float64), 1e-12, None)
        start = np.log(share[1:] / share[0]) if self.two else np.log(share) - np.log(share).mean()
        self.W, self.b = np.zeros((len(self.variance), len(start))), start

    def solve(self, C: float, max_iter: int, tol: float) -> tuple[Matrix, Matrix]:
        """Return coefficients (K, D) and intercepts (K,) at one C, starting from the last solution."""
        from scipy.optimize import minimize  # noqa: PLC0415  # half a second that no fitted head needs

        penalty = 1 / (C * self.total)
        probability = self._probability(self.Z @ self.W.astype(self.Z.dtype) + self.b.astype(self.Z.dtype))
        curvature = max(float((self.weight * probability * (1 - probability)).sum(dtype=np.float64)), 1e-6)
        curvature /= probability.shape[1]
        root = 1 / np.sqrt(curvature * self.variance + penalty)[:, None]  # (r, 1)
        root_b = 1 / np.sqrt(curvature)
        shape = self.W.shape

        def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
            W, b = root * flat[: self.W.size].reshape(shape), root_b * flat[self.W.size :]
            value, slope, slope_b = self._loss(W, b)
            value += penalty / 2 * float((W**2).sum())
            return value, np.concatenate([(root * (slope + penalty * W)).ravel(), root_b * slope_b])

        start = np.concatenate([(self.W / root).ravel(), self.b / root_b])
        found = minimize(
            loss,
            start,
            jac=True,
            method="L-BFGS-B",
            # ftol: what a float32 sum cannot show is no reason to stop.
            options={"maxiter": max_iter, "maxfun": 2 * max_iter, "gtol": tol, "ftol": 0},
        )
        if found.status == 1:
            warnings.warn(f"C={C:g}: stopped at max_iter={max_iter}", ConvergenceWarning, stacklevel=3)
        self.W, self.b = root * found.x[: self.W.size].reshape(shape), root_b * found.x[self.W.size :]
        coef = (self.axes @ self.W.astype(self.axes.dtype)).T
        return coef, self.b - coef @ self.mean

    def _loss(self, W: Matrix, b: Matrix) -> tuple[float, Matrix, Matrix]:
        """Return the mean log-loss and its slopes by W (r, K) and b (K,)."""
        logits = self.Z @ W.astype(self.Z.dtype) + b.astype(self.Z.dtype)
        if self.two:
            value = np.logaddexp(0, logits) - self.one_hot * logits
        else:
            top = logits.max(axis=1, keepdims=True)
            value = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
            value -= (self.one_hot * logits).sum(axis=1, keepdims=True)
        residual = self.weight * (self._probability(logits) - self.one_hot)
        slope = (self.Z.T @ residual).astype(np.float64)
        return float((self.weight * value).sum(dtype=np.float64)), slope, residual.sum(axis=0, dtype=np.float64)

    def _probability(self, logits: Matrix) -> Matrix:
        if self.two:
            from scipy.special import expit  # noqa: PLC0415

            return np.asarray(expit(logits))
        return _softmax(logits)


def _rotated(X: Matrix, weight: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Return principal axes (D, r), variances along them (r,), and centred X (n, D) in these axes: (n, r).

    Double precision throughout: in float32 small variances would be rounding errors, and they matter at large C.
    """
    n, width = X.shape
    if n < width:
        root = np.sqrt(weight) * X.astype(np.float64)
        variance, vectors = np.linalg.eigh(root @ root.T)
    else:
        variance, vectors = np.linalg.eigh(_gram(X, weight))
    kept = variance > variance[-1] * max(n, width) * np.finfo(np.float64).eps + np.finfo(np.float64).tiny
    variance, vectors = variance[kept], vectors[:, kept]
    axes = (vectors if n >= width else (root.T @ vectors) / np.sqrt(variance)).astype(X.dtype)
    return axes, variance, X @ axes


def _gram(X: Matrix, weight: Matrix) -> npt.NDArray[np.float64]:
    """Return the sum of weighted outer products of the rows of X (n, D): (D, D), a block of rows at a time."""
    gram = np.zeros((X.shape[1], X.shape[1]))
    for start in range(0, len(X), _BLOCK):
        block = X[start : start + _BLOCK].astype(np.float64)
        gram += (weight[start : start + _BLOCK] * block).T @ block
    return gram
