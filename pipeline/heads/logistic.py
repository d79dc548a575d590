"""Multinomial logistic regression over many values of C at the price of a few.

The objective is scikit-learn's: C * sum of log-losses + ||W||^2 / 2, intercept free. A fit is done when the norm of the
objective's gradient is at most `tol` times that of the penalty's part of it. The objective is strongly convex, so W is
then within tol * ||W|| of the optimum, and the objective within tol^2 of the smallest (Nesterov 2004, theorem 2.1.10).
All is in double precision: in single precision the gradient at a large C is a rounding error.

- Features are centred (exact, for the intercept is free) and rotated once to their principal axes, where the Hessian
  is near a diagonal. Fewer rows than features leave directions without variance; the penalty sets those weights to
  zero, so they are not computed.
- Every value of C is solved by Newton's method with conjugate gradients (Nocedal & Wright 2006, ch. 7.1). They are
  preconditioned by the Hessian's diagonal; where that takes long, as at a large C, by a Cholesky factor of the mean
  Hessian of the classes, which serves until it, too, takes long.
- A fit climbs the same ladder of values, each from the solution of the one before, whatever else is asked for. So the
  solution for one C is the same bits alone and in a sweep.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

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
LADDER = SWEEP[::2]
"""The values that every fit climbs, up to its own C."""
PATIENCE = 30
"""Products with the Hessian before its factor is made anew: about what that costs."""
EPS = float(np.finfo(np.float64).eps)
SMALL = 1200
"""Weights of several classes of which the whole Hessian is factorised."""
_BLOCK = 4096
"""Rows centred at a time."""


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
        problem = _Problem(X, np.searchsorted(classes, y), compute_sample_weight(self.class_weight, y))
        for C, coef, intercept in problem.path(values, self.max_iter, self.tol):
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
        return np.asarray(_softmax(both), dtype=np.float64)

    def predict(self, X: Matrix) -> npt.NDArray[np.str_]:
        """Return the most probable class of each row of X (n, D): (n,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])


def _softmax(logits: Matrix) -> Matrix:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


class _State(NamedTuple):
    """A solution, and what helps to find the next one."""

    weights: Matrix
    """(r + 1, K): of every axis, and below them the intercepts."""
    factor: Matrix | None = None
    """(r + 1, r + 1): lower Cholesky factor of a mean Hessian, if one was needed."""
    spent: int = 0
    """Products with the Hessian since it was made."""
    converged: bool = True


class _Problem:
    """The data in its principal axes: n rows, r axes and a column of ones, K columns of weights (1 for two classes).

    All sums over rows are weighted and divided by the sum of the weights.
    """

    def __init__(self, X: Matrix, target: npt.NDArray[np.intp], weight: Matrix) -> None:
        one_hot = np.eye(int(target.max()) + 1)[target]
        self.total = float(weight.sum())
        self.weight = (weight / self.total)[:, None]  # (n, 1)
        self.two = one_hot.shape[1] == 2
        self.one_hot = one_hot[:, 1:] if self.two else one_hot  # (n, K)
        self.mean = sum((self.weight[rows] * X[rows]).sum(axis=0, dtype=np.float64) for rows in _blocks(len(X)))
        self.axes, self.variance = _principal_axes(X, self.mean, self.weight)
        self.Z = np.ones((len(X), len(self.variance) + 1))
        for rows in _blocks(len(X)):
            self.Z[rows, :-1] = (X[rows] - self.mean) @ self.axes
        share = np.clip((self.weight * one_hot).sum(axis=0), 1e-12, None)
        self.start = np.zeros((self.Z.shape[1], self.one_hot.shape[1]))
        self.start[-1] = np.log(share[1:] / share[0]) if self.two else np.log(share) - np.log(share).mean()

    def path(self, values: Sequence[float], max_iter: int, tol: float) -> Iterator[tuple[float, Matrix, Matrix]]:
        """Yield each C, ascending, with its coefficients (K, D) and intercepts (K,)."""
        rungs, state = iter(LADDER), _State(self.start)
        rung = next(rungs)
        for C in sorted(values):
            while rung < C:
                state = self.solve(state, rung, max_iter, tol)
                rung = next(rungs, np.inf)
            found = self.solve(state, C, max_iter, tol)
            if rung == C:
                state, rung = found, next(rungs, np.inf)
            coef = (self.axes @ found.weights[:-1]).T
            if not found.converged:
                warnings.warn(f"C={C:g}: stopped at max_iter={max_iter}", ConvergenceWarning, stacklevel=4)
            yield C, coef, found.weights[-1] - coef @ self.mean

    def solve(self, state: _State, C: float, max_iter: int, tol: float) -> _State:
        """Return the solution at one C, starting from another one."""
        penalty = np.full((len(state.weights), 1), 1 / (C * self.total))
        penalty[-1] = 0
        for _ in range(max_iter):
            weights = state.weights
            logits = self.Z @ weights
            probability = self._probability(logits)
            residual = self.weight * (probability - self.one_hot)
            gradient = self.Z.T @ residual + penalty * weights
            rounding = 16 * EPS * np.sqrt(self.variance.sum() + 1) * np.abs(residual).sum()
            size, scale = float(np.linalg.norm(gradient)), float(np.linalg.norm(penalty * weights))
            if size <= max(tol * scale, rounding):
                return state._replace(converged=True)
            share = max(min(0.5, (size / scale) ** 0.5 if scale else 0.5), tol * scale / size / 2)
            state, step = self._newton_step(state, penalty, probability, gradient, share)
            length = self._step_length(logits, weights, step, gradient, penalty)
            if not length:
                break
            state = state._replace(weights=weights + length * step)
        return state._replace(converged=False)

    def _newton_step(
        self, state: _State, penalty: Matrix, probability: Matrix, gradient: Matrix, share: float
    ) -> tuple[_State, Matrix]:
        """Return a step after which a share of the gradient is left, were the objective quadratic."""
        from scipy.linalg import cho_solve  # noqa: PLC0415  # half a second that no fitted head needs
        from scipy.sparse.linalg import LinearOperator, cg  # noqa: PLC0415

        shape = gradient.shape
        spread = self.weight * probability * (1 - probability)  # (n, K)
        of_class = np.maximum(spread.sum(axis=0), np.finfo(np.float64).tiny)
        if state.spent > PATIENCE:
            whole = not self.two and gradient.size <= SMALL
            curvature = probability if whole else spread.mean(axis=1, keepdims=True)
            state = state._replace(factor=(self._whole_factor if whole else self._factor)(curvature, penalty), spent=0)
        products = 0

        def hessian_times(flat: Matrix) -> Matrix:
            nonlocal products
            products += 1
            direction = flat.reshape(shape)
            change = self.Z @ direction
            if not self.two:
                change -= (probability * change).sum(axis=1, keepdims=True)
            change *= self.weight * probability * (1 - probability if self.two else 1)
            return np.asarray((self.Z.T @ change + penalty * direction).ravel())

        def preconditioned(flat: Matrix) -> Matrix:
            if state.factor is not None and len(state.factor) == len(flat):
                return np.asarray(cho_solve((state.factor, True), flat))
            given = flat.reshape(shape)
            if state.factor is None:
                return np.asarray((given / (of_class * np.append(self.variance, 1)[:, None] + penalty)).ravel())
            return np.asarray((cho_solve((state.factor, True), given) / (of_class / of_class.mean())).ravel())

        square = (gradient.size, gradient.size)
        step, _ = cg(
            LinearOperator(square, hessian_times, dtype=np.float64),
            -gradient.ravel(),
            rtol=share,
            maxiter=200,
            M=LinearOperator(square, preconditioned, dtype=np.float64),
        )
        return state._replace(spent=state.spent + products), step.reshape(shape)

    def _factor(self, curvature: Matrix, penalty: Matrix) -> Matrix:
        """Return the lower Cholesky factor of the Hessian at curvatures (n, 1): (r + 1, r + 1)."""
        hessian = np.diag(penalty[:, 0])
        for rows in _blocks(len(self.Z)):
            root = np.sqrt(curvature[rows]) * self.Z[rows]
            hessian += root.T @ root
        return _factorised(hessian, EPS * float(hessian.diagonal().max()))  # where all rows are told apart

    def _whole_factor(self, probability: Matrix, penalty: Matrix) -> Matrix:
        """Return the lower Cholesky factor of the Hessian itself, at probabilities (n, K): ((r + 1) K, (r + 1) K)."""
        classes = probability.shape[1]
        hessian, added = np.diag(np.repeat(penalty[:, 0], classes)), np.repeat(penalty[:, 0], classes)
        for rows in _blocks(len(self.Z)):
            Z, p, weight = self.Z[rows], probability[rows], self.weight[rows]
            product = (np.sqrt(weight)[:, :, None] * Z[:, :, None] * p[:, None, :]).reshape(len(Z), -1)
            hessian -= product.T @ product
            for k in range(classes):
                root = np.sqrt(weight * p[:, [k]]) * Z
                square = root.T @ root
                hessian[k::classes, k::classes] += square
                added[k::classes] += square.diagonal()
        # Intercepts may shift together; and where a class is certain nearly all that was added is taken away again.
        return _factorised(hessian, len(hessian) * EPS * float(added.max()))

    def _step_length(self, logits: Matrix, weights: Matrix, step: Matrix, gradient: Matrix, penalty: Matrix) -> float:
        """Halve the step until the objective falls by a part of what its slope promises (Armijo 1966); or return 0."""
        change = self.Z @ step
        slope, now = float((gradient * step).sum()), self._objective(logits, weights, penalty)
        length = 1.0
        while length > 1e-10:
            then = self._objective(logits + length * change, weights + length * step, penalty)
            if then <= now + 1e-4 * length * slope + 4 * EPS * abs(now):
                return length
            length /= 2
        return 0.0

    def _objective(self, logits: Matrix, weights: Matrix, penalty: Matrix) -> float:
        if self.two:
            loss = np.logaddexp(0, logits) - self.one_hot * logits
        else:
            top = logits.max(axis=1, keepdims=True)
            loss = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
            loss -= (self.one_hot * logits).sum(axis=1, keepdims=True)
        return float((self.weight * loss).sum() + (penalty * weights**2).sum() / 2)

    def _probability(self, logits: Matrix) -> Matrix:
        if self.two:
            from scipy.special import expit  # noqa: PLC0415

            return np.asarray(expit(logits))
        return _softmax(logits)


def _factorised(hessian: Matrix, least: float) -> Matrix:
    """Return the lower Cholesky factor of a Hessian to whose diagonal the least is added that makes it definite."""
    from scipy.linalg import LinAlgError, cholesky  # noqa: PLC0415

    diagonal = hessian.diagonal().copy()
    while True:
        hessian[np.diag_indices_from(hessian)] = diagonal + least
        try:
            return np.asarray(cholesky(hessian, lower=True))
        except LinAlgError:
            least *= 100


def _blocks(rows: int) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, rows, _BLOCK)]


def _principal_axes(X: Matrix, mean: Matrix, weight: Matrix) -> tuple[Matrix, Matrix]:
    """Return principal axes (D, r) and variances along them (r,) of X (n, D)."""
    n, width = X.shape
    if n < width:
        root = np.sqrt(weight) * (X - mean)
        variance, vectors = np.linalg.eigh(root @ root.T)
    else:
        gram = np.zeros((width, width))
        for rows in _blocks(n):
            centred = X[rows] - mean
            gram += (weight[rows] * centred).T @ centred
        variance, vectors = np.linalg.eigh(gram)
    kept = variance > variance[-1] * max(n, width) * EPS + np.finfo(np.float64).tiny
    variance, vectors = variance[kept], vectors[:, kept]
    return (vectors if n >= width else (root.T @ vectors) / np.sqrt(variance)), variance
