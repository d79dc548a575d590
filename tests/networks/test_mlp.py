import numpy as np
import pytest
import torch

from pipeline.networks.mlp import MLPHead


def data() -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    return X, (X[:, 0] * X[:, 1] > 0).astype(int)


def test_it_learns_what_no_linear_head_can() -> None:
    X, y = data()
    head = MLPHead(learning_rate=0.01, dropout=0.1, patience=30, random_state=0).fit(X[:150], y[:150])
    assert head.score(X[150:], y[150:]) > 0.8


def test_numpy_predicts_what_torch_trained() -> None:
    X, y = data()
    head = MLPHead(random_state=0).fit(X, y)
    weights = {name: torch.from_numpy(array) for name, array in head.weights_.items()}
    hidden = torch.relu(torch.from_numpy(X) @ weights["hidden_weight"].T + weights["hidden_bias"])
    logits = hidden @ weights["output_weight"].T + weights["output_bias"]
    np.testing.assert_allclose(head.predict_proba(X), logits.softmax(dim=1).numpy(), atol=1e-6)


def test_it_stops_after_as_many_epochs_without_progress_as_it_has_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs, real = list[int](), torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda rows: epochs.append(rows) or real(rows))
    MLPHead(learning_rate=1e-12, patience=3, random_state=0).fit(*data())
    assert len(epochs) == 1 + 3


def test_fitting_leaves_torchs_own_random_state_alone() -> None:
    X, y = data()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    MLPHead(random_state=0, epochs=1).fit(X, y)
    torch.testing.assert_close(torch.rand(1), expected)


def test_balanced_weights_find_more_of_a_rare_class() -> None:
    X, _ = data()
    rare = X[:, 0] + np.random.default_rng(1).normal(size=200) > 1.8
    found = [
        MLPHead(class_weight=weight, random_state=0).fit(X, rare).predict(X)[rare].mean()
        for weight in (None, "balanced")
    ]
    assert found[1] > found[0] + 0.2
