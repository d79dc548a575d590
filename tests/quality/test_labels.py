"""Labels that are probably wrong."""

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from sklearn.datasets import load_digits

from pipeline.quality import components, labels


def digits(swapped: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features of scikit-learn's digits, their labels with a share of them swapped, and which those are."""
    X, y = load_digits(return_X_y=True)
    generator = np.random.default_rng(seed)
    rows = generator.choice(len(y), round(swapped * len(y)), replace=False)
    y[rows] = (y[rows] + generator.integers(1, 10, len(rows))) % 10
    return components.of(X.astype(np.float32), 0), y, rows


@pytest.mark.parametrize("seed", range(2))
def test_most_swapped_labels_are_found_with_few_false_alarms(seed: int) -> None:
    X, y, swapped = digits(0.01, seed)
    probability = labels.out_of_fold(X, y, range(len(y)), 0)
    found = labels.suspected(y, probability, components.nearest(X, 10)[0])
    assert len(np.intersect1d(found, swapped)) >= 0.75 * len(swapped)
    assert len(np.setdiff1d(found, swapped)) <= 0.01 * len(y)


def test_suspects_are_a_part_of_cleanlabs_worst_first() -> None:
    X, y, _ = digits(0.02)
    probability = labels.out_of_fold(X, y, range(len(y)), 0)
    found = labels.suspected(y, probability, components.nearest(X, 10)[0])
    assert set(found) <= set(
        np.flatnonzero(find_label_issues(y, probability, filter_by="low_self_confidence", n_jobs=1))
    )
    assert (np.diff(probability[found, y[found]]) >= 0).all()


def test_folds_are_even_in_each_class_and_keep_copies_and_groups_together() -> None:
    target = np.repeat([0, 1], [50, 25])
    fold = labels.folds(target, [f"patient {row // 2}" for row in range(75)], 0)
    assert all(len(set(fold[[row, row + 1]])) == 1 for row in range(0, 74, 2))
    assert max(np.bincount(fold[target == 0])) - min(np.bincount(fold[target == 0])) <= 2


@pytest.mark.parametrize("rare", [1, 2, 4])
def test_a_class_with_fewer_images_than_folds_does_not_fail(rare: int) -> None:
    generator = np.random.default_rng(0)
    target = np.repeat([0, 1, 2], [30, 30, rare])
    X = (np.eye(3)[target] + generator.normal(size=(60 + rare, 3)) / 5).astype(np.float32)
    probability = labels.out_of_fold(X, target, range(len(target)), 0)
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    labels.suspected(target, probability, components.nearest(X, 10)[0])
