"""The small MLP head as a scikit-learn classifier: trained by PyTorch, kept and evaluated as NumPy arrays.

Because the fitted state is plain arrays, it is saved like any other head, and predicting needs no PyTorch.
"""

import math
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

Floats = npt.NDArray[np.float32]

HELD_OUT = 0.15
"""Fraction of the training data that early stopping looks at."""


class MLPHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """One hidden layer with ReLU and dropout, AdamW, stopped early on a part held out of the training data.

    Args:
        hidden: units of the hidden layer.
        dropout: fraction of hidden units dropped in training.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        epochs: at most.
        patience: epochs without a lower held-out loss before stopping.
        batch_size: rows per step.
        random_state: seed of the initial weights, the order and the dropout.

    """

    def __init__(
        self,
        *,
        hidden: int = 128,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        epochs: int = 100,
        patience: int = 10,
        batch_size: int = 64,
        random_state: int | None = None,
    ) -> None:
        self.hidden = hidden
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X: Floats, y: npt.NDArray[np.str_]) -> Self:
        """Train on X (n, D) with labels y (n,)."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        for name in ("hidden", "epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        self.classes_, targets = np.unique(y, return_inverse=True)
        fitted, held = self._hold_out(targets)
        rows, labels = torch.from_numpy(np.ascontiguousarray(X)), torch.from_numpy(targets)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0 if self.random_state is None else self.random_state)
            network = nn.Sequential(
                nn.Linear(X.shape[1], self.hidden),
                nn.ReLU(),
                nn.Dropout(self.dropout),
                nn.Linear(self.hidden, len(self.classes_)),
            )
            best = self._train(network, rows[fitted], labels[fitted], rows[held], labels[held])
        self.hidden_weight_, self.hidden_bias_ = best["0.weight"].numpy(), best["0.bias"].numpy()
        self.output_weight_, self.output_bias_ = best["3.weight"].numpy(), best["3.bias"].numpy()
        return self

    def _hold_out(self, targets: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Split rows for early stopping; data too small to spare a row of each class is judged on itself."""
        rows = np.arange(len(targets))
        smallest = np.bincount(targets).min()
        if smallest < 2 or round(len(rows) * HELD_OUT) < len(self.classes_):
            return rows, rows
        fitted, held = train_test_split(rows, test_size=HELD_OUT, stratify=targets, random_state=self.random_state)
        return fitted, held

    def _train(self, network: nn.Sequential, X: Tensor, y: Tensor, X_held: Tensor, y_held: Tensor) -> dict[str, Tensor]:
        """Return the state with the lowest held-out loss."""
        loss = nn.CrossEntropyLoss()
        optimiser = torch.optim.AdamW(network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        lowest, waited = float("inf"), 0
        best = _copy(network)
        for _ in range(self.epochs):
            network.train()
            for batch in torch.randperm(len(X)).split(self.batch_size):  # type: ignore[no-untyped-call]
                optimiser.zero_grad()
                loss(network(X[batch]), y[batch]).backward()
                optimiser.step()
            network.eval()
            with torch.inference_mode():
                held = float(loss(network(X_held), y_held))
            if not math.isfinite(held):
                raise ValueError(f"training diverged: the held-out loss is {held}; lower learning_rate")
            if held < lowest:
                lowest, waited, best = held, 0, _copy(network)
            else:
                waited += 1
                if waited >= self.patience:
                    break
        return best

    def predict_proba(self, X: Floats) -> npt.NDArray[np.float64]:
        """Return the class probabilities of X (n, D): (n, K), columns in the order of `classes_`."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        hidden = np.maximum(X @ self.hidden_weight_.T + self.hidden_bias_, 0)
        logits = (hidden @ self.output_weight_.T + self.output_bias_).astype(np.float64)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    def predict(self, X: Floats) -> npt.NDArray[np.str_]:
        """Return the most probable class of each row of X (n, D): (n,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
