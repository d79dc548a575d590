"""The solver of logistic regression: Newton's method with conjugate gradients, over an ascending ladder of values of C.

The objective is scikit-learn's: C * sum of log-losses + ||W||^2 / 2, without a penalty on the intercept. All is in
double precision: in single precision, the gradient at a large C is lost in rounding.

- Features are centred (exact, because the intercept is free) and rotated once to their principal axes, where the
  Hessian is nearly diagonal. With fewer rows than features, some directions have no variance; the penalty sets their
  weights to zero, so they are not computed.
- Each value of C is solved by Newton's method with conjugate gradients (Nocedal & Wright 2006, ch. 7.1). The
  preconditioner is the Hessian's diagonal. Where that needs many products, as at a large C, it is a Cholesky factor of
  the mean Hessian of the classes, which is renewed when it, too, needs many.
- Every fit climbs the same ladder up to its own C, so one C has the same bits alone and in a sweep. Weights are smooth
  in log C: each fit starts from a parabola through the last three solutions.
- A fit ends where the norm of the gradient is at most `tol` times the norm of the penalty's gradient. The objective is
  strongly convex, so W is then within tol * ||W|| of the optimum, and the objective within tol^2 of its minimum
  (Nesterov 2004, theorem 2.1.10). The intercepts have no penalty; their part is weighted by their curvature.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.heads.types import Floats

SWEEP = tuple(float(f"{C:.4g}") for C in np.logspace(-6, 5, 45))
"""The values of the published probe protocol (DINOv2, Oquab et al. 2023; ssl-transfer, Ericsson et al. 2021)."""
LADDER = SWEEP[::2]
"""The values that every fit solves on its way to its own C."""
PRODUCTS_PER_FACTOR = 60
"""Products with the Hessian before its factor is computed again; the fastest of 15, 30 and 60 at 9 classes."""
MOST_PRODUCTS = 200
"""With the Hessian, in one step."""
EPS = float(np.finfo(np.float64).eps)
SMALL_HESSIAN = 2500
"""The most weights, of several classes together, for which the whole Hessian is factorised."""
_BLOCK = 4096
"""Rows centred at a time."""


def softmax(logits: Floats, axis: int) -> Floats:
    """Return the probabilities of logits; they sum to one along the axis."""
    exponentials = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=axis, keepdims=True))


class SolverState(NamedTuple):
    """What the fits so far pass to the next one."""

    solved: tuple[tuple[float, Floats], ...] = ()
    """The last solutions, at most three: log C, and weights (K, r + 1) of every axis and the intercept."""
    factor: Floats | None = None
    """Lower Cholesky factor of the mean Hessian of the classes (r + 1, r + 1) or of the whole one, once needed."""
    spent: int = 0
    """Products with the Hessian since the factor was computed."""


class Problem:
    """The data in its principal axes: n rows, r axes and a column of ones, K rows of weights (1 for two classes).

    All sums over rows are weighted and divided by the sum of the weights.
    """

    def __init__(self, X: Floats, target: npt.NDArray[np.intp], weight: Floats) -> None:
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

    def path(self, values: Sequence[float], max_iter: int, tol: float) -> Iterator[tuple[float, Floats, Floats, bool]]:
        """Yield each C, ascending, with its coefficients (K, D), its intercepts (K,) and whether it converged."""
        rungs, state = iter(LADDER), SolverState()
        rung = next(rungs)
        for C in sorted(values):
            while rung < C:
                state, _, _ = self.solve(state, rung, max_iter, tol)
                rung = next(rungs, np.inf)
            after, weights, converged = self.solve(state, C, max_iter, tol)
            if rung == C:
                state, rung = after, next(rungs, np.inf)
            coef = weights[:, :-1] @ self.axes.T
            yield C, coef, weights[:, -1] - coef @ self.mean, converged

    def solve(self, state: SolverState, C: float, max_iter: int, tol: float) -> tuple[SolverState, Floats, bool]:
        """Return the state for the next C, the weights at this one, and whether they converged."""
        penalty = np.full(len(self.variance), 1 / (C * self.total))
        penalty[-1] = 0
        weights = self._extrapolated_weights(state, C)
        logits, converged = weights @ self.Z.T, False
        for _ in range(max_iter):
            probability, residual = self._probability(logits)
            gradient = residual @ self.Z + penalty * weights
            rounding = 16 * EPS * np.sqrt(self.variance.sum()) * np.abs(residual).sum()
            spread = self.weight * probability * (1 - probability)  # (K, n)
            saving, part = self._saving(gradient, spread, penalty), float((penalty * weights**2).sum())
            if converged := saving <= tol**2 * part or np.linalg.norm(gradient) <= rounding:
                break
            # Steps get more exact near the optimum (Nocedal & Wright 2006, theorem 7.2), but no more than `tol` needs.
            enough = max(min(0.25, (saving / part) ** 0.5 if part else 0.25) * saving, tol**2 * part / 4)
            state, step, change = self._newton_step(state, penalty, probability, spread, gradient, enough)
            length = self._step_length(logits, change, weights, step, gradient, penalty)
            weights, logits = weights + length * step, logits + length * change
            if not length:
                break
        return state._replace(solved=(*state.solved, (np.log(C), weights))[-3:]), weights, converged

    def _saving(self, gradient: Floats, spread: Floats, penalty: Floats) -> float:
        """Return an upper bound of twice the possible decrease: squared gradients over the smallest curvature."""
        of_intercept = np.maximum(spread.sum(axis=1), np.finfo(np.float64).tiny)
        of_weight = penalty[0] or 1.0  # if all features are constant, there are only intercepts
        return float((gradient[:, :-1] ** 2).sum() / of_weight + (gradient[:, -1] ** 2 / of_intercept).sum())

    def _extrapolated_weights(self, state: SolverState, C: float) -> Floats:
        """Extrapolate the weights to this C, at most one rung ahead, by a parabola through the last solutions."""
        if not state.solved:
            return self.start
        at = [log for log, _ in state.solved]
        x = min(np.log(C), 2 * at[-1] - at[-2]) if len(at) > 1 else at[-1]
        found = np.zeros_like(self.start)
        for i, (log, weights) in enumerate(state.solved):  # Lagrange's form
            found += np.prod([(x - other) / (log - other) for other in at[:i] + at[i + 1 :]]) * weights
        return found

    def _newton_step(
        self, state: SolverState, penalty: Floats, probability: Floats, spread: Floats, gradient: Floats, enough: float
    ) -> tuple[SolverState, Floats, Floats]:
        """Return the new state, a step and its change of the logits.

        On a quadratic objective, the step would leave at most `enough` of the possible decrease.
        """
        if state.spent > PRODUCTS_PER_FACTOR:
            whole = not self.two and gradient.size <= SMALL_HESSIAN
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

    def _preconditioned(self, factor: Floats | None, given: Floats, spread: Floats, penalty: Floats) -> Floats:
        from scipy.linalg import cho_solve  # noqa: PLC0415  # takes half a second, and a fitted head does not need it

        if factor is not None and len(factor) == given.size:
            return np.asarray(cho_solve((factor, True), given.ravel(), check_finite=False).reshape(given.shape))
        of_class = np.maximum(spread.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        if factor is None:
            return np.asarray(given / (of_class * self.variance + penalty))
        return np.asarray(cho_solve((factor, True), given.T, check_finite=False).T / (of_class / of_class.mean()))

    def _factor(self, curvature: Floats, penalty: Floats) -> Floats:
        """Return the lower Cholesky factor of the Hessian at curvatures (n,): (r + 1, r + 1)."""
        hessian = np.diag(penalty)
        for rows in _blocks(len(self.Z)):
            root = np.sqrt(curvature[rows])[:, None] * self.Z[rows]
            hessian += root.T @ root
        # Where all rows are classified with certainty, hardly anything is left of the Hessian but rounding.
        return _cholesky_factor(hessian, EPS * float(hessian.diagonal().max()))

    def _whole_factor(self, probability: Floats, penalty: Floats) -> Floats:
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
        # A common shift of all intercepts has no curvature; and where a class is certain, sums nearly cancel.
        return _cholesky_factor(hessian, len(hessian) * EPS * float(added.max()))

    def _step_length(
        self, logits: Floats, change: Floats, weights: Floats, step: Floats, gradient: Floats, penalty: Floats
    ) -> float:
        """Halve the step until the objective falls by a part of what its slope promises (Armijo 1966), or return 0."""
        slope, now = float((gradient * step).sum()), self._objective(logits, weights, penalty)
        length = 1.0
        while length > 1e-10:
            then = self._objective(logits + length * change, weights + length * step, penalty)
            if then <= now + 1e-4 * length * slope + 4 * EPS * abs(now):
                return length
            length /= 2
        return 0.0

    def _objective(self, logits: Floats, weights: Floats, penalty: Floats) -> float:
        if self.two:
            loss = np.logaddexp(0, (1 - 2 * self.one_hot) * logits)[0]
        else:  # from the differences to the true class's logit, so that a small loss keeps all its digits
            above = logits - (self.one_hot * logits).sum(axis=0)
            top = np.maximum(above.max(axis=0), 0)
            others = ((1 - self.one_hot) * np.exp(above - top)).sum(axis=0)
            loss = np.where(top > 0, top + np.log(others + np.exp(-top)), np.log1p(others))
        return float((self.weight * loss).sum() + (penalty * weights**2).sum() / 2)

    def _probability(self, logits: Floats) -> tuple[Floats, Floats]:
        """Return probabilities (K, n), and probabilities minus labels, weighted and with all their digits, (K, n)."""
        if self.two:
            from scipy.special import expit  # noqa: PLC0415

            sign = 1 - 2 * self.one_hot
            return np.asarray(expit(logits)), self.weight * sign * expit(sign * logits)
        probability = softmax(logits, axis=0)
        wrong = self.weight * probability * (1 - self.one_hot)
        return probability, wrong - self.one_hot * wrong.sum(axis=0)


def _cholesky_factor(hessian: Floats, least: float) -> Floats:
    """Return the lower Cholesky factor of a Hessian, with `least` or a multiple added to make it positive definite."""
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


def _principal_axes(X: Floats, mean: Floats, weight: Floats) -> tuple[Floats, Floats]:
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
