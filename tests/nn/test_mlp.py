import numpy as np
import torch

from pipeline.nn.mlp import MLPHead


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
    hidden = torch.relu(
        torch.from_numpy(X) @ torch.from_numpy(head.hidden_weight_).T + torch.from_numpy(head.hidden_bias_)
    )
    logits = hidden @ torch.from_numpy(head.output_weight_).T + torch.from_numpy(head.output_bias_)
    np.testing.assert_allclose(head.predict_proba(X), logits.softmax(dim=1).numpy(), atol=1e-6)


def test_fitting_leaves_torchs_own_random_state_alone() -> None:
    X, y = data()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    MLPHead(random_state=0, epochs=1).fit(X, y)
    torch.testing.assert_close(torch.rand(1), expected)
