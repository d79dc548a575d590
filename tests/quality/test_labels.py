"""Labels that are probably wrong."""

import re
from dataclasses import replace

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from sklearn.datasets import load_digits
from sklearn.metrics import cohen_kappa_score

from pipeline.data.manifest import Manifest
from pipeline.quality import checks, components, files, labels
from pipeline.quality.checks import CHECKS
from pipeline.quality.findings import Material
from tests.conftest import REPOSITORY
from tests.quality.examples import material


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


def noisy_digits(noise: float, images: int = 600) -> Material:
    """Return digits with right labels, and noise of so many standard deviations on their features."""
    X, y = load_digits(return_X_y=True)
    X, names = X[:images], [str(number) for number in range(images)]
    label = [str(one) for one in y[:images]]
    table = Manifest(names, names, names, label, [None] * images, ["train"] * images)
    X += np.random.default_rng(0).normal(size=X.shape) * noise * X.std()
    return replace(material(4), table=table, row=np.arange(images), features=X.astype(np.float32))


def test_where_the_features_hardly_tell_the_classes_no_label_is_doubted_and_the_check_says_why() -> None:
    given = noisy_digits(noise=2)
    assert len(labels.suspected(given.target, given.probability, given.nearest[0])) > 0.3 * 600, "every third"
    result = CHECKS["label_error"].run(given)
    assert list(result.findings) == []
    assert result.note.startswith("Labels cannot be judged here")
    told = files.content(given.table, {"label_error": result}, CHECKS)
    assert files.summary(told, 600) == f"600 images looked at: nothing found; label_error: {result.note}"


def test_the_note_on_false_alarms_follows_the_agreement_and_holds_if_no_label_is_wrong() -> None:
    note = CHECKS["label_error"].run(noisy_digits(noise=1)).note
    assert note.startswith("If all your labels are right, so are these.")
    assert "19% of the listed labels were right, on average, if 5% of all labels were wrong" in note
    assert note.endswith("and 46% if 1% were.")


@pytest.mark.parametrize("largest", [0.5, 0.9])
def test_agreement_is_scikit_learns_kappa_and_zero_for_naming_the_largest_class(largest: float) -> None:
    generator = np.random.default_rng(0)
    target, probability = (generator.random(200) > largest).astype(int), generator.dirichlet([1, 1], 200)
    expected = cohen_kappa_score(target, probability.argmax(axis=1))
    assert labels.agreement(target, probability) == pytest.approx(expected)
    assert labels.agreement(target, np.tile([1.0, 0.0], (200, 1))) == pytest.approx(0)
    assert labels.agreement(np.zeros(9, int), np.ones((9, 1))) == 0


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


def test_the_shares_of_false_alarms_are_those_of_the_documented_study() -> None:
    table = (REPOSITORY / "docs/quality.md").read_text()
    for kappa, if_1_percent, if_5_percent in checks.RIGHT_BY_AGREEMENT:
        assert re.search(rf"^\| {kappa} and more .*\| {if_1_percent}% \| {if_5_percent}% \|$", table, re.MULTILINE)
