from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.embeddings.mapped import MappedRows
from pipeline.quality import components
from tests.processors import on_threads


def example(n: int = 50, width: int = 6, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float16) + np.float16(2)


@given(st.integers(0, 1000), st.integers(3, 60), st.integers(2, 9))
@settings(max_examples=25)
def test_distances_are_those_of_rows_of_length_one_up_to_one_scale(seed: int, n: int, width: int) -> None:
    X = example(n, width, seed)
    k = min(4, n - 1)
    rows = X.astype(np.float64) / np.linalg.norm(X.astype(np.float64), axis=1, keepdims=True)
    rows /= np.sqrt(rows.var(axis=0).sum())
    apart = np.linalg.norm(rows[:, None] - rows, axis=2) + np.diag(np.full(n, np.inf))
    found, distance = components.nearest(components.of(X, 0), k)
    np.testing.assert_allclose(distance, np.sort(apart, axis=1)[:, :k], rtol=1e-2, atol=2e-3)
    assert (found != np.arange(n)[:, None]).all()


def test_rows_left_in_a_file_give_the_same_as_rows_in_memory() -> None:
    X = example()
    np.testing.assert_array_equal(components.of(MappedRows([X], np.arange(len(X))), 0), components.of(X, 0))


def test_equal_rows_become_zeros() -> None:
    assert not components.of(np.ones((5, 4), np.float16), 0).any()


@pytest.mark.processors
def test_one_and_two_threads_give_the_same_bytes() -> None:
    code = """
import hashlib
import numpy as np
from pipeline.quality import components
X = components.of(np.random.default_rng(0).normal(size=(9000, 300)).astype(np.float16), 0)
print([hashlib.sha256(one.tobytes()).hexdigest() for one in (X, *components.nearest(X[:2000], 3))])
"""
    assert len(on_threads(code)) == 1
