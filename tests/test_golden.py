"""The numbers of a tiny project, as they were: dvc.yaml names pipeline/core nowhere, for an edit there moves none.

Who moves them on purpose writes the new ones here, and says in the CHANGELOG why. Tolerances cover what processors
differ by.
"""

import numpy as np
import pytest

from pipeline.data import manifest
from pipeline.embeddings import matrix
from pipeline.evaluation import runs
from pipeline.verdict import schema
from tests.conftest import Project

SPLITS = "evtettvettettevvetteetttveeteetttttv"
"""Of every image, in the manifest's order: train, val or test (e)."""
FEATURES = [0.0397, 0.2939, 0.2492, 0.2590, 0.0274, 0.0674, 0.1496, 0.0274,
            0.2732, 0.2763, 0.0534, 0.1171, 0.0000, 0.0089, 0.1731, 0.3149]  # fmt: skip
"""The mean of each."""
PROBABILITIES = {
    "logreg": [[0.807, 0.143, 0.050], [0.805, 0.158, 0.038], [0.876, 0.095, 0.029]],
    "last": [[0.341, 0.329, 0.330], [0.341, 0.329, 0.330], [0.341, 0.329, 0.330]],
}
"""Of the first test images."""


def test_the_splits(finished: Project) -> None:
    letters = {"train": "t", "val": "v", "test": "e"}
    assert "".join(letters[split] for split in manifest.read().split) == SPLITS


def test_the_embeddings(finished: Project) -> None:
    found = matrix.read("tiny")
    np.testing.assert_allclose(found.features.astype(float).mean(axis=0), FEATURES, atol=2e-4)


@pytest.mark.parametrize("run", PROBABILITIES)
def test_the_predictions(finished: Project, run: str) -> None:
    found = runs.read("tiny", run).predictions.of("test").probability
    np.testing.assert_allclose(found[:3], PROBABILITIES[run], atol=2e-3)


def test_the_verdict(finished: Project) -> None:
    content = schema.read()
    (pair,) = content["pairs"]
    assert content["answer"] == "keep the frozen head"
    assert (pair["only_first_right"], pair["only_second_right"], pair["p"]) == (4, 0, 0.125)
    bounds = [pair["difference"][name] for name in ("value", "low", "high")]
    np.testing.assert_allclose(bounds, [0.3333, 0.0220, 0.6094], atol=1e-4)
