"""Small labelled features, and quick settings of heads that are slow by default."""

from typing import Any

import numpy as np

from pipeline import heads
from pipeline.core.sections import Selection
from pipeline.heads import HEADS, Rows
from pipeline.heads.fitting import FittedHead

QUICK: dict[str, dict[str, Any]] = {
    "random_forest": {"n_estimators": 10},
    "extra_trees": {"n_estimators": 10},
    "gradient_boosting": {"max_iter": 10, "min_samples_leaf": 2},
    "nystroem_svm": {"landmarks": 8},
    "mlp": {"hidden": 16, "learning_rate": 0.01, "epochs": 30},
    "streaming_linear": {"learning_rate": 0.01},
    "streaming_mlp": {"learning_rate": 0.01},
    "stacking": {"folds": 2},
}
NEEDS_FOLDS = [name for name in HEADS if hasattr(HEADS[name](), "cv") or name == "stacking"]
"""Heads that cross-validate within themselves: a class with one sample is refused."""


def selection(folds: int = 5, repeats: int = 0) -> Selection:
    return Selection(metric="accuracy", folds=folds, repeats=repeats)


def data(classes: int = 3, n: int = 60, width: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    y = np.arange(n) % classes
    X = generator.normal(size=(n, width)).astype(np.float32)
    X[np.arange(n), y % width] += 3
    return X, np.array([f"class {k}" for k in range(classes)])[y]


def fit(
    name: str, entry: dict[str, Any], X: np.ndarray, y: np.ndarray, folds: int = 2, seed: int = 0, repeats: int = 0
) -> FittedHead:
    """Fit a head; the training rows are the validation rows, too."""
    return heads.fit(name, entry, Rows.of(X, y), Rows.of(X, y), selection(folds, repeats), seed)


def fitted(name: str, X: np.ndarray, y: np.ndarray) -> FittedHead:
    return fit(name, QUICK.get(name, {}), X, y)
