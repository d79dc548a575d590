"""The values of a head's settings are checked without a fit, so that a mistake shows before the frozen pass."""

import inspect
from typing import Any

import pytest

from pipeline.heads import HEADS, check

SETTINGS = [
    (name, key)
    for name, factory in HEADS.items()
    for key in inspect.signature(factory).parameters
    if key not in ("seed", "settings")
]


@pytest.mark.parametrize(("name", "key"), SETTINGS)
def test_a_value_that_no_classifier_takes_is_named(name: str, key: str) -> None:
    (problem,) = check(name, {key: "absurd"})
    assert problem.startswith(f"params.yaml: heads.{name}.{key}: got ")
    assert "expected" in problem


@pytest.mark.parametrize("name", HEADS)
def test_the_defaults_of_every_head_are_in_order(name: str) -> None:
    parameters = inspect.signature(HEADS[name]).parameters.values()
    stated = {one.name: one.default for one in parameters if one.name not in ("seed", "settings")}
    assert check(name, stated) == []


@pytest.mark.parametrize(
    ("name", "entry", "expected"),
    [
        ("knn", {"n_neighbors": "ten"}, ["n_neighbors: got 'ten', expected a whole number of at least 1 or null"]),
        (
            "knn",
            {"n_neighbors": [3, "ten", -1], "weights": "unifrom"},
            [
                "n_neighbors: got 'ten', expected a whole number of at least 1 or null",
                "n_neighbors: got -1, expected a whole number of at least 1 or null",
                "weights: got 'unifrom', expected one of: distance, null, uniform; did you mean 'uniform'?",
            ],
        ),
        ("mlp", {"dropout": [0.5, 2]}, ["dropout: got 2, expected a number of at least 0 and at most 1"]),
        ("lda", {"shrinkage": ["auto", 0.1, 2]},
         ["shrinkage: got 2, expected auto, a number of at least 0 and at most 1 or null"]),
        ("rbf_svm", {"whiten": True, "components": [None, 8]}, []),
        ("logreg", {"C": "sweep"}, []),
        ("nystroem_svm", {"landmarks": 0}, ["landmarks: got 0, expected a whole number of at least 1"]),
        ("streaming_mlp", {"hidden": ["x"]}, ["hidden: got 'x', expected a whole number of at least 1"]),
        (
            "voting",
            {"members": {"knn": {"n_neighbors": "ten"}, "logreg": {}}},
            ["members.knn.n_neighbors: got 'ten', expected a whole number of at least 1 or null"],
        ),
    ],
)  # fmt: skip
def test_each_wrong_value_is_one_line(name: str, entry: dict[str, Any], expected: list[str]) -> None:
    assert check(name, entry) == [f"params.yaml: heads.{name}.{line}" for line in expected]


def test_a_class_that_cannot_be_made_is_one_line() -> None:
    entry = {"kind": "sklearn_class", "class_name": "sklearn.multiclass.OneVsRestClassifier", "n_jobs": 1}
    (problem,) = check("own", entry)
    assert problem.startswith("params.yaml: heads.own: OneVsRestClassifier")
