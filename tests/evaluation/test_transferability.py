"""Transferability scores, against slow computations of their definitions."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import KNeighborsClassifier

from pipeline.evaluation import transferability
from pipeline.evaluation.transferability import h_score, knn_accuracy, logme, score


def labelled(n: int, width: int, classes: int = 3, shift: float = 1.5, seed: int = 0) -> tuple[Any, Any]:
    """Make features (n, width) of which the first `classes` depend on the class."""
    generator = np.random.default_rng(seed)
    targets = np.arange(n) % classes
    X = generator.normal(size=(n, width)) + 0.3
    X[np.arange(n), targets % width] += shift
    return X, targets


def slow_logme(X: Any, targets: Any) -> float:
    """Maximise the log density of each 0/1 target under N(0, I / beta + X X^T / alpha), from several starts."""

    def loss(logs: Any, y: Any) -> float:
        alpha, beta = np.exp(logs)
        covariance = np.eye(len(X)) / beta + X @ X.T / alpha
        return -float(multivariate_normal(np.zeros(len(X)), covariance).logpdf(y))

    bounds = [(-12, 12), (-12, np.log(1e6))]
    best = []
    for one in np.unique(targets):
        y = (targets == one).astype(float)
        starts = ([0, 0], [0, 4], [5, 1], [-3, 2])
        found = [minimize(loss, start, (y,), "L-BFGS-B", bounds=bounds, tol=1e-12) for start in starts]
        best.append(-min(one.fun for one in found))
    return float(np.mean(best) / len(X))


@pytest.mark.parametrize(("n", "width", "shift"), [(40, 5, 1.5), (40, 5, 0), (40, 5, 6), (12, 30, 1.5), (20, 20, 1.5)])
def test_logme_is_the_maximum_of_the_evidence(n: int, width: int, shift: float) -> None:
    X, targets = labelled(n, width, shift=shift)
    assert logme(X, targets) == pytest.approx(slow_logme(X, targets), abs=1e-5)


def test_logme_of_features_without_full_rank_is_the_maximum_too() -> None:
    X, targets = labelled(40, 4)
    X = np.column_stack([X, X[:, 0] + X[:, 1], np.full(40, 3.0), np.zeros(40)])
    assert logme(X, targets) == pytest.approx(slow_logme(X, targets), abs=1e-5)


@pytest.mark.parametrize("of", [logme, h_score])
def test_turned_or_scaled_features_score_the_same(of: Any) -> None:
    X, targets = labelled(60, 8)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]
    assert of(X @ turn * 37, targets) == pytest.approx(of(X, targets), rel=1e-5)


def test_the_h_score_does_not_depend_on_where_features_lie() -> None:
    X, targets = labelled(60, 8)
    assert h_score(X + 5, targets) == pytest.approx(h_score(X, targets))


@pytest.mark.parametrize(("n", "width"), [(60, 5), (20, 40)])
def test_the_h_score_is_its_formula(n: int, width: int) -> None:
    X, targets = labelled(n, width)
    fitted = LedoitWolf().fit(X)
    means = np.array([X[targets == one].mean(axis=0) for one in targets])
    between = np.cov(means, rowvar=False, bias=True)
    expected = np.trace(np.linalg.inv(fitted.covariance_) @ ((1 - fitted.shrinkage_) * between))
    assert h_score(X, targets) == pytest.approx(expected)


@pytest.mark.parametrize("neighbours", [1, 4, 5])
def test_nearest_neighbours_are_those_of_scikit_learn_with_one_row_left_out(
    neighbours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transferability, "_BLOCK", 7)
    X, targets = labelled(50, 6)
    right = 0
    for row in range(len(X)):
        others = np.delete(np.arange(len(X)), row)
        model = KNeighborsClassifier(neighbours, metric="cosine").fit(X[others], targets[others])
        right += model.predict(X[[row]])[0] == targets[row]
    assert knn_accuracy(X, targets, neighbours) == right / len(X)


def test_of_equally_near_rows_the_first_votes() -> None:
    X = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert knn_accuracy(X, np.array([0, 0, 1, 1]), 1) == 2 / 4  # the third and the last see the first


def test_rows_of_one_unit_do_not_vote_on_each_other() -> None:
    X = np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.9], [0.9, 1.0]])
    targets = np.array([0, 0, 1, 1])
    assert knn_accuracy(X, targets, 1) == 1
    assert knn_accuracy(X, targets, 1, np.array([0, 0, 1, 1])) == 0
    assert knn_accuracy(X, targets, 3, np.zeros(4, int)) == 0  # nobody votes


def test_informative_features_score_higher_than_noise() -> None:
    noise, some, much = (score(*labelled(90, 10, shift=shift), 90) for shift in (0, 2, 6))
    for name in ("logme", "h_score", "knn_accuracy"):
        assert getattr(noise, name) < getattr(some, name) < getattr(much, name)


@pytest.mark.parametrize("X", [np.zeros((9, 4)), np.full((9, 4), 0.1), np.eye(9), np.eye(3)[np.arange(9) % 3]])
def test_degenerate_features_have_finite_scores(X: Any) -> None:
    found = score(X.astype(np.float16), np.arange(9) % 3, 9)
    assert np.isfinite([found.logme, found.h_score, found.knn_accuracy]).all()


def test_constant_features_say_nothing() -> None:
    found = score(np.full((9, 4), 0.1), np.arange(9) % 3, 9)
    assert (found.h_score, found.largest_class) == (0, pytest.approx(1 / 3, abs=1e-6))


def test_one_class_and_two_rows_are_enough() -> None:
    found = score(np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([0, 0]), 7)
    assert (found.images, found.training_images, found.neighbours) == (2, 7, 1)
    assert (found.knn_accuracy, found.largest_class, found.h_score) == (1, 1, 0)


def test_surveys_and_projections_are_imported_without_scikit_learn() -> None:
    modules = "pipeline.evaluation.surveys, pipeline.evaluation.projection"
    code = f"import sys, {modules}; assert not {{'sklearn', 'scipy', 'torch'}} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", code], check=True)
