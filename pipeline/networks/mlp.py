"""The small MLP head as a scikit-learn classifier: trained by PyTorch, stored and evaluated as NumPy arrays.

Since the fitted state is plain arrays, saving it saves no code, and predicting needs no PyTorch.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from pipeline.data.splits import folds

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]

HELD_OUT = 0.15
"""Fraction of the training data held out for early stopping."""


class DenseHead(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A trained network with at most one hidden layer: its arrays, and how they predict.

    `weights_` holds output_weight (K, H), output_bias (K,) and, with a hidden layer, hidden_weight (H, D) and
    hidden_bias (H,).
    """

    weights_: dict[str, Floats]

    def predict_proba(self, X: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Return the class probabilities of X (n, D): (n, K), columns in the order of `classes_`."""
        check_is_fitted(self)
        hidden = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)  # in the precision of X
        if "hidden_weight" in self.weights_:
            hidden = np.maximum(hidden @ self.weights_["hidden_weight"].T + self.weights_["hidden_bias"], 0)
        logits = (hidden @ self.weights_["output_weight"].T + self.weights_["output_bias"]).astype(np.float64)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    def predict(self, X: Floats) -> npt.NDArray[np.str_]:
        """Return the most probable class of each row of X (n, D): (n,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def _keep(self, network: nn.Sequential) -> None:
        """Copy the network's parameters into `weights_`."""
        names = {0: "output"} if len(network) == 1 else {0: "hidden", 3: "output"}
        self.weights_ = {
            f"{name}_{part}": getattr(network[layer], part).detach().numpy().copy()
            for layer, name in names.items()
            for part in ("weight", "bias")
        }


def dense(width: int, hidden: int, classes: int, dropout: float) -> nn.Sequential:
    """Return a network from `width` features to `classes` logits, with one hidden layer unless `hidden` is 0."""
    if not hidden:
        return nn.Sequential(nn.Linear(width, classes))
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes))


def loss_of(class_weight: str | None, targets: Ints) -> nn.CrossEntropyLoss:
    """Return the log-loss; with "balanced", rows weigh inversely to their class's frequency."""
    if class_weight not in {None, "balanced"}:
        raise ValueError(f"class_weight: got {class_weight!r}, expected one of: null, balanced")
    weight = compute_class_weight(class_weight, classes=np.unique(targets), y=targets)
    return nn.CrossEntropyLoss(torch.from_numpy(weight.astype(np.float32)))


@dataclass(kw_only=True, eq=False, repr=False)
class MLPHead(DenseHead):
    """One hidden layer with ReLU and dropout, trained by AdamW and stopped early on held-out training data."""

    hidden: int = 128
    """Units of the hidden layer."""
    dropout: float = 0.5
    """Fraction of hidden units dropped in training."""
    learning_rate: float = 1e-3
    """Of AdamW."""
    weight_decay: float = 1e-2
    """Of AdamW."""
    epochs: int = 100
    """At most."""
    patience: int = 10
    """Epochs without a lower held-out loss before stopping."""
    batch_size: int = 64
    """Rows per step."""
    class_weight: str | None = None
    """None, or "balanced" for weights inverse to the classes' frequencies."""
    random_state: int | None = None
    """Seed of the initial weights, the order and the dropout."""

    def fit(self, X: Floats, y: npt.NDArray[np.str_], origin: Ints | None = None) -> Self:
        """Train on X (n, D) with labels y (n,); `origin` (n, 2) are the rows' images and groups, for early stopping."""
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        for name in ("hidden", "epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        self.classes_, targets = np.unique(y, return_inverse=True)
        of = folds.apart(len(y)) if origin is None else origin
        fitted, held = folds.hold_out(targets, of, HELD_OUT, self.random_state)
        rows, labels = torch.from_numpy(np.ascontiguousarray(X)), torch.from_numpy(targets)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0 if self.random_state is None else self.random_state)
            network = dense(X.shape[1], self.hidden, len(self.classes_), self.dropout)
            loss = loss_of(self.class_weight, targets)
            self._train(network, loss, rows[fitted], labels[fitted], rows[held], labels[held])
        self._keep(network)
        return self

    def _train(
        self, network: nn.Sequential, loss: nn.Module, X: Tensor, y: Tensor, X_held: Tensor, y_held: Tensor
    ) -> None:
        """Train, and leave the network in the state with the lowest held-out loss."""
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
        network.load_state_dict(best)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
