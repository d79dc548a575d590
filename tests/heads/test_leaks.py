"""Folds within heads, on features by which a group, or other views of an image, reveal the label."""

from typing import Any

import numpy as np
import pytest

from pipeline.data.splits import folds
from pipeline.heads import HEADS
from pipeline.heads.training import fit_classifier

WITHOUT_A_CLUE = {
    "stacking": {"members": {"knn": {"n_neighbors": 1, "metric": "euclidean"}}},
    "voting": {"members": {"rbf_svm": {"C": 10, "gamma": 0.05}}},
    "linear_svm": {},
    "mlp": {"hidden": 64, "dropout": 0.0, "weight_decay": 0.0, "learning_rate": 0.003},
}


def giving_away(seed: int, groups: int = 30, each: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features that identify the group but not the label, the labels, and the groups."""
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), each)
    X = generator.normal(size=(groups, 40))[group] + 0.05 * generator.normal(size=(len(group), 40))
    return X.astype(np.float32), np.array(["a", "b"])[np.arange(groups) % 2][group], group


def surprise(name: str, entry: dict[str, Any], origin: np.ndarray) -> float:
    """Return the mean log-loss on groups that the head has not seen."""
    X, y, _ = giving_away(0)
    model = fit_classifier(HEADS[name](seed=0, **entry), X, y, origin)
    new, truth, _ = giving_away(1)
    probability = model.predict_proba(new)[np.arange(len(truth)), (truth == "b").astype(int)]
    return float(-np.log(np.maximum(probability, 1e-12)).mean())


@pytest.mark.parametrize(("name", "entry"), WITHOUT_A_CLUE.items())
@pytest.mark.parametrize("of", ["groups", "views"])
def test_a_head_is_overconfident_on_new_groups_only_if_its_inner_folds_split_groups_or_views(
    name: str, entry: dict[str, Any], of: str
) -> None:
    group = giving_away(0)[2]
    image = group if of == "views" else np.arange(len(group))
    right, leaky = (surprise(name, entry, origin) for origin in (np.column_stack([image, group]), folds.apart(240)))
    assert right < 1.0  # a coin says 0.69
    assert leaky > right + 0.3


@pytest.mark.parametrize(
    "settings",
    [
        {"class_name": "sklearn.linear_model.SGDClassifier", "early_stopping": True},
        {"class_name": "sklearn.neural_network.MLPClassifier", "early_stopping": True},
        {"class_name": "sklearn.ensemble.GradientBoostingClassifier", "n_iter_no_change": 3},
        {"class_name": "sklearn.linear_model.RidgeClassifierCV"},
    ],
)
def test_a_class_of_scikit_learn_that_would_split_rows_by_itself_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="because it splits rows by itself, not images and groups"):
        HEADS["sklearn_class"](**settings)


def test_boosting_never_holds_rows_out() -> None:
    assert HEADS["gradient_boosting"]()[-1].early_stopping is False
    assert (
        HEADS["sklearn_class"](class_name="sklearn.ensemble.HistGradientBoostingClassifier")[-1].early_stopping is False
    )


def test_a_class_that_cross_validates_gets_folds_of_groups() -> None:
    X, y, group = giving_away(0)
    settings = {
        "class_name": "sklearn.linear_model.LogisticRegressionCV",
        "cv": 3,
        "l1_ratios": (0.0,),
        "Cs": 1,
        "scoring": "accuracy",
        "use_legacy_attributes": False,
    }
    scores = []
    for origin in (np.column_stack([np.arange(240), group]), folds.apart(240)):
        model = fit_classifier(HEADS["sklearn_class"](**settings), X, y, origin)
        assert model[-1].cv == 3
        scores.append(np.mean(model[-1].scores_))
    right, leaky = scores
    assert right < 0.6
    assert leaky > 0.75
