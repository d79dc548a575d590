"""Twins, against a comparison of all pairs written down plainly."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.embeddings.stored import Stored
from pipeline.evaluation import twins
from pipeline.evaluation.twins import Twins

TRAIN, VAL, TEST = range(3)


def example(n: int = 60, width: int = 8, seed: int = 0) -> tuple[Any, Any, Any]:
    """Return features, splits and contents of n images, some of which share their bytes."""
    generator = np.random.default_rng(seed)
    split = generator.choice([TRAIN, VAL, TEST], n, p=[0.6, 0.2, 0.2])
    split[:3] = TRAIN, VAL, TEST
    content = np.minimum(np.arange(n), n - 3)  # the last three are copies
    X = generator.normal(size=(n, width)).astype(np.float16)
    X[content == n - 3] = X[n - 3]
    return X, split, content


def find(X: Any, split: Any, content: Any, seed: int = 0) -> Twins:
    return twins.find(X, split != TRAIN, split, content, seed)


def plainly(X: Any, split: Any, content: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the similarity of every image to its twin, and all similarities."""
    rows = X.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows -= rows.mean(axis=0)
    variance, axes = np.linalg.eigh(np.cov(rows.T, bias=True))
    kept = np.argsort(-variance)[: min(512, len(X) // 2)]
    white = rows @ axes[:, kept] / np.sqrt(variance[kept])
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    similarity = white @ white.T
    for one in range(len(X)):
        for other in range(len(X)):
            if split[one] == split[other] or content[one] == content[other]:
                similarity[one, other] = -np.inf
    return similarity.max(axis=1), similarity


@given(st.integers(0, 1000), st.integers(6, 60), st.integers(2, 12), st.integers(1, 9))
@settings(max_examples=30)
def test_it_finds_what_a_comparison_of_all_pairs_finds(seed: int, n: int, width: int, block: int) -> None:
    X, split, content = example(n, width, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twins, "_BLOCK", block)
        found = find(X, split, content)
    largest, similarity = plainly(X, split, content)
    np.testing.assert_allclose(found.similarity, largest, atol=2e-3)
    np.testing.assert_allclose(similarity[np.arange(n), found.row], largest, atol=2e-3)
    assert (found.sought, found.judged) == ((split != TRAIN).sum(), (split != TRAIN).sum())


def test_copies_are_no_twins_and_a_slightly_changed_image_is() -> None:
    X, split, content = example()
    split[-3:] = TRAIN, VAL, TEST  # copies of each other
    X[5], split[4:6] = X[4] * 1.02, (TRAIN, TEST)
    found = find(X, split, content)
    assert found.row[[4, 5]].tolist() == [5, 4]
    assert found.similarity[[4, 5]] == pytest.approx(1, abs=1e-2)
    assert (found.similarity[-3:] < 0.9).all()


def test_of_equally_similar_images_the_first_counts() -> None:
    X, split, content = example()
    X[[7, 9]], split[[7, 9, 20]] = X[20], (TRAIN, TRAIN, TEST)
    assert find(X, split, content).row[20] == 7


def test_too_many_pairs_are_searched_for_a_drawn_part_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    X, split, content = example()
    whole = find(X, split, content)
    monkeypatch.setattr(twins, "MOST_PAIRS", 5 * len(X))
    part = find(X, split, content)
    assert (part.sought, part.judged) == (5, whole.judged)
    judged = np.flatnonzero(split != TRAIN)
    same = judged[part.similarity[judged] == whole.similarity[judged]]
    assert len(same) >= 5
    assert (part.row[split == TRAIN] >= 0).all()
    assert find(X, split, content, seed=1).row.tolist() != part.row.tolist()


def test_rows_left_in_a_file_give_the_same_as_rows_in_memory() -> None:
    X, split, content = example()
    stored = find(Stored([X], np.arange(len(X))), split, content)
    np.testing.assert_array_equal(stored.row, find(X, split, content).row)


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_equal_rows_and_few_of_them_are_no_reason_to_fail(n: int) -> None:
    split = np.arange(n) % 3
    found = find(np.ones((n, 4), np.float16), split, np.arange(n))
    assert not np.isnan(found.similarity).any()
    assert (np.abs(found.similarity) <= 1).all()


def test_one_and_two_threads_give_the_same_bytes() -> None:
    code = (
        "import hashlib; from tests.evaluation import test_twins as t; found = t.find(*t.example(900, 300));"
        "print(hashlib.sha256(found.similarity.tobytes() + found.row.tobytes()).hexdigest())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, env={"OMP_NUM_THREADS": number, "PATH": ""}
        ).stdout
        for number in ("1", "2")
    }
    assert len(said) == 1
