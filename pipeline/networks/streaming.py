"""Heads that train block by block, for a matrix larger than memory: linear, or with one hidden layer.

X is anything of shape (n, D) that yields an array for a slice of rows or for row numbers; it is never held as a whole.
Runs of neighbouring rows are read in random order into a buffer, the buffer is shuffled, and batches are taken from it:
so reads stay long and batches stay mixed, even if the files lie in the order of their classes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from pipeline.networks.mlp import DenseHead, Floats, Ints, dense, loss_of

RUN, BUFFER = 64, 128
"""Neighbouring rows read at once, and runs shuffled together: 21 MB of float16 rows of 1,280."""
BLOCK = 2048
"""Rows at a time where order does not matter."""
STEPS = 1000
"""At least so many steps: with few rows there are more epochs than `epochs` says."""


class RowSource(Protocol):
    """Features (n, D) that are read some rows at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, D)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | Ints) -> Floats: ...


@dataclass(kw_only=True, eq=False, repr=False)
class StreamingHead(DenseHead):
    """Logistic regression, or an MLP, by AdamW under a cosine schedule (Loshchilov & Hutter 2017)."""

    hidden: int = 0
    """Units of the hidden layer; 0 for none."""
    dropout: float = 0.0
    """Fraction of hidden units dropped in training."""
    learning_rate: float = 1e-3
    """At the start."""
    weight_decay: float = 1e-4
    """Of AdamW."""
    epochs: int = 5
    """Passes over the rows; more if there are few rows."""
    batch_size: int = 256
    """Rows per step."""
    class_weight: str | None = None
    """None, or "balanced" for weights inverse to the classes' frequencies."""
    random_state: int | None = None
    """Seed of the initial weights, the order and the dropout."""

    def fit(self, X: RowSource, y: npt.NDArray[np.str_]) -> Self:
        """Train on X (n, D) with labels y (n,)."""
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        self.classes_, targets = np.unique(y, return_inverse=True)
        self.n_features_in_ = int(X.shape[1])
        mean, spread = _moments(X)
        seed = 0 if self.random_state is None else self.random_state
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = dense(X.shape[1], self.hidden, len(self.classes_), self.dropout)
            self._train(network, X, targets, mean, spread, np.random.default_rng(seed))
        self._keep(network)
        self._fold_in(mean, spread)
        return self

    def _train(
        self,
        network: nn.Sequential,
        X: RowSource,
        targets: Ints,
        mean: Floats,
        spread: Floats,
        order: np.random.Generator,
    ) -> None:
        loss = loss_of(self.class_weight, targets)
        optimiser = torch.optim.AdamW(network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        steps = math.ceil(len(targets) / self.batch_size)
        epochs = max(self.epochs, math.ceil(STEPS / steps))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * steps)
        for _ in range(epochs):
            for rows, features in _mixed(X, self.batch_size, order):
                optimiser.zero_grad()
                standard = torch.from_numpy((features.astype(np.float32) - mean) / spread)
                value = loss(network(standard), torch.from_numpy(targets[rows]))
                value.backward()
                optimiser.step()
                schedule.step()
            if not math.isfinite(float(value.detach())):
                raise ValueError(f"training diverged: the loss is {float(value.detach())}; lower learning_rate")
        network.eval()

    def _fold_in(self, mean: Floats, spread: Floats) -> None:
        """Fold the standardisation into the first layer: W (x - mean) / spread + b = (W / spread) x + (b - ...)."""
        first = "hidden" if self.hidden else "output"
        weight = (self.weights_[f"{first}_weight"] / spread).astype(np.float32)
        self.weights_[f"{first}_weight"] = weight
        self.weights_[f"{first}_bias"] = (self.weights_[f"{first}_bias"] - weight @ mean).astype(np.float32)

    def predict_proba(self, X: RowSource) -> npt.NDArray[np.float64]:
        """Return the class probabilities of X (n, D): (n, K), columns in the order of `classes_`."""
        check_is_fitted(self, "weights_")
        blocks = [super(StreamingHead, self).predict_proba(X[rows]) for rows in _blocks(len(X), BLOCK)]
        return np.concatenate(blocks) if blocks else np.empty((0, len(self.classes_)))


def _blocks(rows: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _moments(X: RowSource) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of each column, (D,) each; 1 for a constant one.

    Blocks are merged by the formula of Chan, Golub & LeVeque (1983), which avoids cancellation.
    """
    count, mean, squares = 0, np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for rows in _blocks(len(X), BLOCK):
        block = X[rows].astype(np.float64)
        if not np.isfinite(block).all():
            bad = rows.start + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
            raise ValueError(f"features: row {bad}: got NaN or infinity, expected finite numbers")
        shift = block.mean(axis=0) - mean
        total = count + len(block)
        squares += ((block - block.mean(axis=0)) ** 2).sum(axis=0) + shift**2 * count * len(block) / total
        mean += shift * len(block) / total
        count = total
    spread = np.sqrt(squares / count)
    constant = spread <= 1e-7 * np.maximum(np.abs(mean), 1e-30)
    return mean.astype(np.float32), np.where(constant, 1, spread).astype(np.float32)


def _mixed(X: RowSource, batch_size: int, order: np.random.Generator) -> Iterator[tuple[Ints, Floats]]:
    """Yield batches of row numbers and rows, every row once."""
    runs = order.permutation(math.ceil(len(X) / RUN))
    left: tuple[Ints, Floats] | None = None
    for start in range(0, len(runs), BUFFER):
        chosen = np.sort(runs[start : start + BUFFER])
        rows = np.concatenate([np.arange(run * RUN, min((run + 1) * RUN, len(X))) for run in chosen])
        features = X[rows]
        if left is not None:
            rows, features = np.concatenate([left[0], rows]), np.concatenate([left[1], features])
        shuffled = order.permutation(len(rows))
        last = start + BUFFER >= len(runs)
        whole = len(rows) if last else len(rows) - len(rows) % batch_size
        for begin in range(0, whole, batch_size):
            batch = shuffled[begin : begin + batch_size]
            yield rows[batch], features[batch]
        left = (rows[shuffled[whole:]], features[shuffled[whole:]])
        del features  # before the next buffer is read
