from pathlib import Path

import numpy as np
import pytest

from pipeline.embeddings.mapped import MappedRows
from pipeline.networks import streaming
from pipeline.networks.streaming import StreamingHead


def data(n: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    y = np.sort(generator.integers(0, 3, n))  # files lie in order of their class
    X = generator.normal(size=(n, 8)) * 4 + 20
    X[np.arange(n), y] += 6
    X[:, 7] = 1
    return X.astype(np.float16), np.array(["a", "b", "c"])[y]


@pytest.fixture
def stored(tmp_path: Path) -> MappedRows:
    X, _ = data()
    X.tofile(tmp_path / "X")
    mapped = np.asarray(np.memmap(tmp_path / "X", np.float16, "r", shape=X.shape))
    return MappedRows([mapped[:1000], mapped[1000:]], np.arange(3000))


@pytest.mark.parametrize("hidden", [0, 16])
def test_rows_read_block_by_block_give_what_an_array_gives(
    stored: MappedRows, hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "STEPS", 100)
    X, y = data()
    one = StreamingHead(hidden=hidden, random_state=0).fit(stored, y)
    two = StreamingHead(hidden=hidden, random_state=0).fit(X.astype(np.float32), y)
    np.testing.assert_array_equal(one.predict_proba(stored), two.predict_proba(X))


def test_linear_is_as_good_as_logistic_regression_in_memory() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = data()
    reference = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y).score(X, y)
    assert StreamingHead(learning_rate=3e-3, random_state=0).fit(X, y).score(X, y) >= reference - 0.01


def test_every_row_is_seen_once_an_epoch_and_batches_are_mixed() -> None:
    X, _ = data()
    batches = list(streaming._mixed(X, 256, np.random.default_rng(0)))
    assert sorted(np.concatenate([rows for rows, _ in batches])) == list(range(3000))
    for rows, features in batches:
        np.testing.assert_array_equal(features, X[rows])
        assert np.ptp(rows) > 1500


def test_rows_left_over_from_one_buffer_go_into_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "RUN", 7)
    monkeypatch.setattr(streaming, "BUFFER", 5)
    batches = list(streaming._mixed(np.arange(200.0)[:, None], 16, np.random.default_rng(0)))
    assert sorted(np.concatenate([rows for rows, _ in batches])) == list(range(200))
    assert [len(rows) for rows, _ in batches] == [16] * 12 + [8]


def test_mean_and_spread_are_numpys_also_far_from_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "BLOCK", 7)
    X = np.random.default_rng(0).normal(1000, 0.5, size=(100, 3))
    mean, spread = streaming._moments(X)
    np.testing.assert_allclose(mean, X.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(spread, X.std(axis=0), rtol=1e-6)


def test_a_row_that_is_not_a_number_is_named(stored: MappedRows) -> None:
    X, y = data()
    X[2001, 3] = np.inf
    with pytest.raises(ValueError, match="row 2001: got NaN or infinity"):
        StreamingHead().fit(X, y)


def test_balanced_weights_find_more_of_a_rare_class() -> None:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(1000, 2)).astype(np.float32)
    rare = X[:, 0] + generator.normal(size=1000) > 2
    found = [
        StreamingHead(learning_rate=0.01, class_weight=weight, random_state=0).fit(X, rare).predict(X)[rare].mean()
        for weight in (None, "balanced")
    ]
    assert found[1] > found[0] + 0.2
