"""Maps and scores of embeddings are the same on any number of threads."""

import pytest

from tests.processors import on_threads

CODE = """
import hashlib
import numpy as np
from pipeline.evaluation import transferability
from pipeline.evaluation.projection import project
X = np.random.default_rng(0).normal(size=(150, 300))
print(hashlib.sha256(project(X, 0).tobytes()).hexdigest())
transferability._DECIMALS = 17
print(transferability.score(np.random.default_rng(0).normal(size=(900, 300)), np.arange(900) % 3, 900))
"""


@pytest.mark.processors
def test_one_and_two_threads_give_the_same_map_and_the_same_scores() -> None:
    (said,) = on_threads(CODE)
    assert len(said.split(b"\n")[0]) == 64
