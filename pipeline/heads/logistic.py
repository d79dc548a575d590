"""Multinomial logistic regression over many values of C at the price of a few.

The objective is scikit-learn's: C * sum of log-losses + ||W||^2 / 2, intercept free. All is in double precision: in
single precision the gradient at a large C is a rounding error.

- Features are centred (exact, for the intercept is free) and rotated once to their principal axes, where the Hessian
  is near a diagonal. Fewer rows than features leave directions without variance; the penalty sets those weights to
  zero, so they are not computed.
- Every value of C is solved by Newton's method with conjugate gradients (Nocedal & Wright 2006, ch. 7.1). They are
  preconditioned by the Hessian's diagonal; where that takes long, as at a large C, by a Cholesky factor of the mean
  Hessian of the classes, which serves until it, too, takes long.
- A fit climbs the same ladder of values, whatever else is asked for, so the solution for one C is the same bits alone
  and in a sweep. Weights are smooth in log C: each fit starts where a parabola through the last three leads.
- A fit ends where the norm of the objective's gradient is at most `tol` times that of the penalty's part of it. The
  objective is strongly convex, so W is then within tol * ||W|| of the optimum, and the objective within tol^2 of the
  smallest (Nesterov 2004, theorem 2.1.10). The intercepts have no penalty: their share counts by their curvature.
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
PATIENCE = 60
"""Products with the Hessian before its factor is made anew: of 15, 30 and 60 the fastest at 9 classes."""
MOST_PRODUCTS = 200
"""Of one step."""
EPS = float(np.finfo(np.float64).eps)
SMALL = 2500
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
        return np.asarray(_softmax(both, axis=1), dtype=np.float64)

    def predict(self, X: Matrix) -> npt.NDArray[np.str_]:
        """Return the most probable class of each row of X (n, D): (n,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])


def _softmax(logits: Matrix, axis: int) -> Matrix:
    exponentials = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=axis, keepdims=True))


class _State(NamedTuple):
    """What the fits so far leave for the next one."""

    solved: tuple[tuple[float, Matrix], ...] = ()
    """The last rungs, at most three: log C, and weights (K, r + 1): of every axis, and the intercept."""
    factor: Matrix | None = None
    """Lower Cholesky factor of the mean Hessian of the classes (r + 1, r + 1) or of the whole one, once needed."""
    spent: int = 0
    """Products with the Hessian since it was made."""


class _Problem:
    """The data in its principal axes: n rows, r axes and a column of ones, K rows of weights (1 for two classes).

    All sums over rows are weighted and divided by the sum of the weights.
    """

    def __init__(self, X: Matrix, target: npt.NDArray[np.intp], weight: Matrix) -> None:
        one_hot = np.eye(int(target.max()) + 1)[:, target]
        self.total = float(weight.sum())
        self.weight = weight / self.total  # (n,)
        self.two = len(one_hot) == 2
        self.one_hot = one_hot[1:] if self.two else one_hot  # (K, n)
        column = self.weight[:, None]
        self.mean = sum((column[rows] * X[rows]).sum(axis=0, dtype=np.float64) for rows in _blocks(len(X)))
        self.axes, variance = _principal_axes(X, self.mean, column)
        self.variance = np.append(variance, 1)  # (r + 1,)
        self.Z = np.ones((len(X), len(self.variance)))
        for rows in _blocks(len(X)):
            self.Z[rows, :-1] = (X[rows] - self.mean) @ self.axes
        share = np.clip(one_hot @ self.weight, 1e-12, None)
        self.start = np.zeros((len(self.one_hot), len(self.variance)))
        self.start[:, -1] = np.log(share[1:] / share[0]) if self.two else np.log(share) - np.log(share).mean()

    def path(self, values: Sequence[float], max_iter: int, tol: float) -> Iterator[tuple[float, Matrix, Matrix]]:
        """Yield each C, ascending, with its coefficients (K, D) and intercepts (K,)."""
        rungs, state = iter(LADDER), _State()
        rung = next(rungs)
        for C in sorted(values):
            while rung < C:
                state, _, _ = self.solve(state, rung, max_iter, tol)
                rung = next(rungs, np.inf)
            after, weights, converged = self.solve(state, C, max_iter, tol)
            if rung == C:
                state, rung = after, next(rungs, np.inf)
            coef = weights[:, :-1] @ self.axes.T
            if not converged:
                warnings.warn(f"C={C:g}: stopped at max_iter={max_iter}", ConvergenceWarning, stacklevel=4)
            yield C, coef, weights[:, -1] - coef @ self.mean

    def solve(self, state: _State, C: float, max_iter: int, tol: float) -> tuple[_State, Matrix, bool]:
        """Return the weights at one C, whether they are the optimum, and what helps to find the next ones."""
        penalty = np.full(len(self.variance), 1 / (C * self.total))
        penalty[-1] = 0
        weights = self._foreseen(state, C)
        logits, converged = weights @ self.Z.T, False
        for _ in range(max_iter):
            probability, residual = self._probability(logits)
            gradient = residual @ self.Z + penalty * weights
            rounding = 16 * EPS * np.sqrt(self.variance.sum()) * np.abs(residual).sum()
            spread = self.weight * probability * (1 - probability)  # (K, n)
            saving, part = self._saving(gradient, spread, penalty), float((penalty * weights**2).sum())
            if converged := saving <= tol**2 * part or np.linalg.norm(gradient) <= rounding:
                break
            # The nearer, the more exact (Nocedal & Wright 2006, theorem 7.2), but not beyond what is asked for.
            enough = max(min(0.25, (saving / part) ** 0.5 if part else 0.25) * saving, tol**2 * part / 4)
            state, step, change = self._newton_step(state, penalty, probability, spread, gradient, enough)
            length = self._step_length(logits, change, weights, step, gradient, penalty)
            weights, logits = weights + length * step, logits + length * change
            if not length:
                break
        return state._replace(solved=(*state.solved, (np.log(C), weights))[-3:]), weights, converged

    def _saving(self, gradient: Matrix, spread: Matrix, penalty: Matrix) -> float:
        """Return twice what the best weights would save, at most: squared gradients over the least curvature there."""
        of_intercept = np.maximum(spread.sum(axis=1), np.finfo(np.float64).tiny)
        of_weight = penalty[0] or 1.0  # where all features are constant, there are intercepts only
        return float((gradient[:, :-1] ** 2).sum() / of_weight + (gradient[:, -1] ** 2 / of_intercept).sum())

    def _foreseen(self, state: _State, C: float) -> Matrix:
        """Return the weights at this C, but at most one rung on, of a parabola through the last rungs."""
        if not state.solved:
            return self.start
        at = [log for log, _ in state.solved]
        x = min(np.log(C), 2 * at[-1] - at[-2]) if len(at) > 1 else at[-1]
        found = np.zeros_like(self.start)
        for i, (log, weights) in enumerate(state.solved):  # Lagrange's form
            found += np.prod([(x - other) / (log - other) for other in at[:i] + at[i + 1 :]]) * weights
        return found

    def _newton_step(
        self, state: _State, penalty: Matrix, probability: Matrix, spread: Matrix, gradient: Matrix, enough: float
    ) -> tuple[_State, Matrix, Matrix]:
        """Return a step and how it changes the logits; it would leave enough to save, were the objective quadratic."""
        if state.spent > PATIENCE:
            whole = not self.two and gradient.size <= SMALL
            made = self._whole_factor(probability, penalty) if whole else self._factor(spread.mean(axis=0), penalty)
            state = state._replace(factor=made, spent=0)
        weighted = spread if self.two else self.weight * probability
        step, change = np.zeros_like(gradient), np.zeros_like(probability)
        left = -gradient
        direction = ready = self._preconditioned(state.factor, left, spread, penalty)
        size, products = float((left * ready).sum()), 0
        while products < MOST_PRODUCTS and size > 0:
            products += 1
            moved = direction @ self.Z.T
            curved = weighted * (moved if self.two else moved - (probability * moved).sum(axis=0))
            product = curved @ self.Z + penalty * direction
            length = size / float((direction * product).sum())
            step += length * direction
            change += length * moved
            left -= length * product
            if self._saving(left, spread, penalty) <= enough:
                break
            ready = self._preconditioned(state.factor, left, spread, penalty)
            size, before = float((left * ready).sum()), size
            direction = ready + size / before * direction
        return state._replace(spent=state.spent + products), step, change

    def _preconditioned(self, factor: Matrix | None, given: Matrix, spread: Matrix, penalty: Matrix) -> Matrix:
        from scipy.linalg import cho_solve  # noqa: PLC0415  # half a second that no fitted head needs

        if factor is not None and len(factor) == given.size:
            return np.asarray(cho_solve((factor, True), given.ravel(), check_finite=False).reshape(given.shape))
        of_class = np.maximum(spread.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        if factor is None:
            return np.asarray(given / (of_class * self.variance + penalty))
        return np.asarray(cho_solve((factor, True), given.T, check_finite=False).T / (of_class / of_class.mean()))

    def _factor(self, curvature: Matrix, penalty: Matrix) -> Matrix:
        """Return the lower Cholesky factor of the Hessian at curvatures (n,): (r + 1, r + 1)."""
        hessian = np.diag(penalty)
        for rows in _blocks(len(self.Z)):
            root = np.sqrt(curvature[rows])[:, None] * self.Z[rows]
            hessian += root.T @ root
        return _factorised(hessian, EPS * float(hessian.diagonal().max()))  # where all rows are told apart

    def _whole_factor(self, probability: Matrix, penalty: Matrix) -> Matrix:
        """Return the lower Cholesky factor of the Hessian itself, at probabilities (K, n): (K (r + 1), K (r + 1))."""
        classes, axes = len(probability), len(penalty)
        hessian = np.diag(np.tile(penalty, classes))
        added = hessian.diagonal().copy()
        for rows in _blocks(len(self.Z)):
            Z, p, weight = self.Z[rows], probability[:, rows].T, self.weight[rows, None]
            product = ((np.sqrt(weight) * p)[:, :, None] * Z[:, None, :]).reshape(len(Z), -1)
            hessian -= product.T @ product
            for k in range(classes):
                root, own = np.sqrt(weight * p[:, [k]]) * Z, slice(k * axes, (k + 1) * axes)
                square = root.T @ root
                hessian[own, own] += square
                added[own] += square.diagonal()
        # Intercepts may shift together; and where a class is certain nearly all that was added is taken away again.
        return _factorised(hessian, len(hessian) * EPS * float(added.max()))

    def _step_length(
        self, logits: Matrix, change: Matrix, weights: Matrix, step: Matrix, gradient: Matrix, penalty: Matrix
    ) -> float:
        """Halve the step until the objective falls by a part of what its slope promises (Armijo 1966); or return 0."""
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
            loss = np.logaddexp(0, (1 - 2 * self.one_hot) * logits)[0]
        else:  # the other classes' logits above the true one's: a small loss keeps all its digits
            above = logits - (self.one_hot * logits).sum(axis=0)
            top = np.maximum(above.max(axis=0), 0)
            others = ((1 - self.one_hot) * np.exp(above - top)).sum(axis=0)
            loss = np.where(top > 0, top + np.log(others + np.exp(-top)), np.log1p(others))
        return float((self.weight * loss).sum() + (penalty * weights**2).sum() / 2)

    def _probability(self, logits: Matrix) -> tuple[Matrix, Matrix]:
        """Return probabilities (K, n) and, weighted, what they are above the labels; that keeps all its digits, too."""
        if self.two:
            from scipy.special import expit  # noqa: PLC0415

            sign = 1 - 2 * self.one_hot
            return np.asarray(expit(logits)), self.weight * sign * expit(sign * logits)
        probability = _softmax(logits, axis=0)
        wrong = self.weight * probability * (1 - self.one_hot)
        return probability, wrong - self.one_hot * wrong.sum(axis=0)


def _factorised(hessian: Matrix, least: float) -> Matrix:
    """Return the lower Cholesky factor of a Hessian to whose diagonal the least is added that makes it definite."""
    from scipy.linalg import LinAlgError, cholesky  # noqa: PLC0415

    diagonal = hessian.diagonal().copy()
    while True:
        hessian[np.diag_indices_from(hessian)] = diagonal + least
        try:
            return np.asarray(cholesky(hessian, lower=True, check_finite=False))
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
