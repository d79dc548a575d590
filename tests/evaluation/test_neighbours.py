"""Nearest rows, against a plain comparison of all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation import neighbours


@given(st.integers(0, 999), st.integers(3, 40), st.integers(1, 4), st.integers(1, 3), st.booleans(), st.integers(2, 9))
@settings(max_examples=60)
@pytest.mark.processors
def test_the_neighbours_are_those_of_a_comparison_of_all_pairs(
    seed: int, n: int, width: int, k: int, itself: bool, block: int
) -> None:
    k = min(k, n - 1)
    rows = np.random.default_rng(seed).integers(-2, 3, (n, width)).astype(np.float32)  # many are equally similar
    products = rows @ rows.T
    if itself:
        np.fill_diagonal(products, -np.inf)
    expected = np.lexsort((np.tile(np.arange(n), (n, 1)), -products), axis=1)[:, :k]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "_BLOCK", block)
        patch.setattr(neighbours, "_WIDE", block + 1)
        patch.setattr(neighbours, "_MANY", 1)
        found, similarity = neighbours.nearest(rows, rows, k, itself=itself)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(similarity, np.take_along_axis(products, expected, axis=1))


def test_what_is_not_similar_enough_is_not_found() -> None:
    rows = neighbours.of_length_one(np.array([[1, 0], [1, 0.1], [0, 1]]))
    found, similarity = neighbours.nearest(rows, rows, 2, itself=True, least=0.5)
    assert found.tolist() == [[1, -1], [0, -1], [-1, -1]]
    assert similarity[0, 1] == similarity[2, 0] == -np.inf
