"""The sweep of 45 values of C: against a plain loop of scikit-learn's fits on the same cores."""

import time
import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from benchmarks.figures import Figure, at_least, at_most
from pipeline.heads.logistic import SWEEP, Logistic

ROWS, WIDTH, CLASSES, JUDGED = 20_000, 1_280, 20, 10_000
MAX_ITER = 100
"""Scikit-learn's own default, and the shorter loop: to convergence it would take the better part of an hour."""

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.intp]


def features(rows: int, width: int, classes: int, seed: int = 0) -> tuple[Floats, Labels]:
    """Make rows that look like a CNN's: few directions carry most of the variance, nothing is below zero.

    One label in twenty is wrong, so that too large a C overfits, as it does on real features.
    """
    latent = width // 4
    shared, own = np.random.default_rng(1), np.random.default_rng([2, seed])
    mixing = shared.normal(size=(latent, width)) / np.arange(1, latent + 1)[:, None] ** 0.5
    means = 0.2 * shared.normal(size=(classes, latent))
    y = own.integers(0, classes, rows)
    inner = (means[y] + own.normal(size=(rows, latent))).astype(np.float32)
    X = np.maximum(inner @ mixing.astype(np.float32) + 0.3 * own.normal(size=(rows, width)).astype(np.float32), 0)
    wrong = own.random(rows) < 0.05
    y[wrong] = own.integers(0, classes, wrong.sum())
    return X, y


def measure() -> Iterator[Figure]:
    """Choose C on rows held out, by both; compare the seconds, and the accuracy on further rows."""
    X, y = features(ROWS + 2 * JUDGED, WIDTH, CLASSES)
    X = (X - X[:ROWS].mean(axis=0)) / X[:ROWS].std(axis=0)
    fit, choose, judge = slice(0, ROWS), slice(ROWS, ROWS + JUDGED), slice(ROWS + JUDGED, None)

    def best_of(models: Iterator[Logistic | LogisticRegression]) -> tuple[float, float]:
        """Return the accuracy of the model that does best on the choosing rows, and the seconds all took."""
        start, best = time.perf_counter(), (0.0, 0.0)
        for model in models:
            score = float((model.predict(X[choose]) == y[choose]).mean())
            if score > best[0]:
                best = (score, float((model.predict(X[judge]) == y[judge]).mean()))
        return best[1], time.perf_counter() - start

    ours, ours_seconds = best_of(Logistic().path(X[fit], y[fit], SWEEP))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        plain, plain_seconds = best_of(LogisticRegression(C=C, max_iter=MAX_ITER).fit(X[fit], y[fit]) for C in SWEEP)
    detail = f"{ROWS:,} x {WIDTH:,}, {CLASSES} classes: {ours_seconds:.0f} against {plain_seconds:.0f} s"
    yield at_least(f"45 values of C, times as fast as a plain loop ({detail})", plain_seconds / ours_seconds, "x", 3)
    points = 100 * abs(ours - plain)
    yield at_most(f"difference in accuracy ({100 * ours:.2f} against {100 * plain:.2f}%)", points, "pt", 0.1)
