from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.embeddings.mapped import MappedRows
from pipeline.evaluation import projection
from pipeline.evaluation.projection import project


def clusters(each: int, width: int = 12, number: int = 3) -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    of = np.arange(each * number) % number
    return (6 * np.eye(number, width)[of] + generator.normal(size=(len(of), width))).astype(np.float16), of


def purity(placed: Any, of: Any) -> float:
    """Share of the points whose nearest other point is of their cluster."""
    distance = ((placed[:, None] - placed) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    return float((of[distance.argmin(axis=1)] == of).mean())


def test_clusters_stay_apart() -> None:
    X, of = clusters(40)
    assert purity(project(X, 0), of) > 0.95


def test_rows_beyond_the_landmarks_lie_in_their_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "LANDMARKS", 60)
    monkeypatch.setattr(projection, "_BLOCK", 16)
    X, of = clusters(40)
    assert purity(project(X, 0), of) > 0.95


def test_a_row_equal_to_a_landmark_lies_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    X, _ = clusters(20)
    monkeypatch.setattr(projection, "LANDMARKS", 60)
    placed = project(np.concatenate([X, X]), 0)
    chosen = np.random.default_rng(0).permutation(120)[:60]
    both = [row for row in range(60) if (row in chosen) != (row + 60 in chosen)]
    np.testing.assert_allclose(placed[both], placed[np.add(both, 60)], atol=2e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_map_fills_the_unit_square_with_one_scale(seed: int) -> None:
    placed = project(clusters(10)[0], seed)
    low, high = placed.min(axis=0), placed.max(axis=0)
    assert (low.min(), high.max(), (high - low).max()) == (0, 1, 1)
    np.testing.assert_allclose(low + high, 1, atol=2e-4)
    np.testing.assert_array_equal(placed, placed.round(4))


@pytest.mark.parametrize("rows", [1, 2, 3, 9, 10, 11])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_few_rows_and_features_have_a_map(rows: int, width: int) -> None:
    placed = project(np.random.default_rng(0).normal(size=(rows, width)), 0)
    assert placed.shape == (rows, 2)
    assert ((placed >= 0) & (placed <= 1)).all()


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_equal_rows_lie_in_the_middle(value: float) -> None:
    np.testing.assert_array_equal(project(np.full((20, 7), value, np.float16), 0), np.full((20, 2), 0.5))


def test_many_copies_of_two_rows_are_two_places() -> None:
    X = np.repeat(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), 40, axis=0)
    assert purity(project(X, 0), np.repeat([0, 1], 40)) == 1


def test_stored_and_mapped_rows_are_placed_as_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "LANDMARKS", 20)
    X, _ = clusters(10)
    X.tofile(tmp_path / "X")
    mapped = np.memmap(tmp_path / "X", np.float16, "r", shape=X.shape)
    expected = project(X, 0)
    np.testing.assert_array_equal(project(mapped, 0), expected)
    np.testing.assert_array_equal(project(MappedRows([np.asarray(mapped)], np.arange(len(X))), 0), expected)
