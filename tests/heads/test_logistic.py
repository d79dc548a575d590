"""The fast sweep against scikit-learn's own solver."""

import warnings
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_sample_weight

from pipeline.heads.logistic import SWEEP, Logistic
from tests.soak import soak


def data(n: int, width: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(n, width)) * generator.choice([0.1, 1, 30], size=width) + 5
    scores = X @ generator.normal(size=(width, classes)) + generator.gumbel(size=(n, classes)) * 20
    y = scores.argmax(axis=1)
    y[:classes] = np.arange(classes)
    return X, np.array([f"class {k}" for k in range(classes)])[y]


def objective(model: Logistic | LogisticRegression, X: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """Return the objective that scikit-learn documents."""
    p = model.predict_proba(X)[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    return float(model.C * (weight * -np.log(p)).sum() + (model.coef_**2).sum() / 2)


@pytest.mark.parametrize(("n", "width"), [(200, 12), (40, 60)])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_every_value_of_the_path_is_scikit_learns_solution(
    n: int, width: int, classes: int, class_weight: str | None
) -> None:
    X, y = data(n, width, classes)
    values = [1e-5, 1e-2, 1.0, 10.0]
    path = Logistic(tol=1e-9, class_weight=class_weight).path(X, y, values)
    for C, ours in zip(values, path, strict=True):
        reference = LogisticRegression(C=C, tol=1e-10, max_iter=100_000, class_weight=class_weight).fit(X, y)
        np.testing.assert_allclose(ours.predict_proba(X), reference.predict_proba(X), atol=2e-4)
        weight = compute_sample_weight(class_weight, y)
        assert objective(ours, X, y, weight) <= objective(reference, X, y, weight) * (1 + 1e-9)


EVERY = set(product([2, 10, 100], [1.0, 1e3], [1e-6, 1e-2, 1.0, 1e5]))
PAIRS = {(2, 1.0, 1e-6), (2, 1e3, 1e-2), (2, 1.0, 1.0), (2, 1e3, 1e5), (10, 1e3, 1e-6), (10, 1.0, 1e-2), (10, 1e3, 1.0),
         (10, 1.0, 1e5), (100, 1.0, 1e-6), (100, 1e3, 1e-2)}  # fmt: skip
"""Every combination of two settings, except for 100 classes with a large C, which take seconds."""


@pytest.mark.parametrize(("classes", "condition", "C"), [*sorted(PAIRS), *soak(sorted(EVERY - PAIRS))])
def test_half_precision_features_of_any_condition_number_have_scikit_learns_solution(
    classes: int, condition: float, C: float
) -> None:
    generator = np.random.default_rng(classes)
    scale = np.logspace(0, -np.log10(condition), 8)
    X = (generator.normal(size=(400, 8)) @ np.linalg.qr(generator.normal(size=(8, 8)))[0] * scale).astype(np.float16)
    y = (X / scale @ generator.normal(size=(8, classes)) + generator.gumbel(size=(400, classes))).argmax(axis=1)
    X = X.astype(np.float32)
    ours = Logistic(C=C, tol=1e-8).fit(X, y)
    reference = LogisticRegression(C=C, tol=1e-8, solver="newton-cholesky", max_iter=1000).fit(X.astype(np.float64), y)
    np.testing.assert_allclose(ours.predict_proba(X), reference.predict_proba(X), atol=1e-6)
    weight = np.ones(len(y))
    assert objective(ours, X, y, weight) == pytest.approx(objective(reference, X, y, weight), rel=1e-8)


@pytest.mark.parametrize(("n", "width", "classes"), [(300, 40, 3), (300, 10, 20), (60, 90, 5)])
def test_by_default_the_objective_is_within_a_millionth_of_its_minimum_over_the_whole_sweep(
    n: int, width: int, classes: int
) -> None:
    X, y = data(n, width, classes, 14)
    tight = Logistic(tol=1e-8).path(X.astype(np.float32), y, SWEEP)
    for ours, best in zip(Logistic().path(X.astype(np.float32), y, SWEEP), tight, strict=True):
        least = objective(best, X, y, np.ones(n))
        assert objective(ours, X, y, np.ones(n)) <= least * (1 + 1e-6)


def test_a_solution_has_the_same_bits_alone_and_in_any_sweep() -> None:
    X, y = data(60, 80, 3)
    X = X.astype(np.float32)
    swept = {model.C: model.coef_ for model in Logistic().path(X, y, [*SWEEP, 0.5, 77.0])}
    for C in (1e-6, SWEEP[1], 0.5, 77.0, 1e5):
        np.testing.assert_array_equal(Logistic(C=C).fit(X, y).coef_, swept[C])


@given(n=st.integers(4, 30), width=st.integers(1, 40), classes=st.integers(2, 4), single=st.booleans())
@settings(max_examples=30)
def test_any_shape_and_precision_gives_probabilities(n: int, width: int, classes: int, single: bool) -> None:
    X, y = data(max(n, classes), width, classes)
    X[:, 0] = 7  # constant
    model = Logistic(C=1.0).fit(X.astype(np.float32 if single else np.float64), y)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)
    assert model.coef_.shape == (1 if classes == 2 else classes, width)


def test_the_sweep_is_the_published_one() -> None:
    assert len(SWEEP) == 45
    assert (SWEEP[0], SWEEP[-1]) == (1e-6, 1e5)
    np.testing.assert_allclose(np.diff(np.log10(SWEEP)), 0.25, atol=1e-3)


def test_stopping_at_the_iteration_limit_gives_a_warning() -> None:
    with pytest.warns(UserWarning, match="C=1: stopped at max_iter=2"):
        Logistic(max_iter=2).fit(*data(100, 5, 3))


def test_a_separable_problem_stays_finite_over_the_whole_sweep() -> None:
    X = np.concatenate([np.full((20, 3), -1.0), np.full((20, 3), 1.0)])
    y = np.repeat(["a", "b"], 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = list(Logistic().path(X, y, SWEEP))
    assert all(np.isfinite(model.coef_).all() for model in fitted)
    assert (fitted[-1].predict(X) == y).all()


@pytest.mark.parametrize("rows", [12, 20, 40])
def test_perfectly_separated_classes_are_fitted_at_every_c(rows: int) -> None:
    """If probabilities are 0 and 1 to the last digit, the Hessian nearly vanishes."""
    y = np.arange(rows) % 3
    for seed in range(5):
        X = np.random.default_rng(seed).normal(size=(rows, 6))
        X[np.arange(rows), y] += 30
        assert [(one.predict(X) == y).all() for one in Logistic().path(X, y, SWEEP)][-20:] == [True] * 20
