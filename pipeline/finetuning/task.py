"""The data of a fine-tuning, and its result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pipeline.core.cost import Cost
from pipeline.networks.frozen_pass import Item

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Task:
    """All items with their targets and splits."""

    items: Sequence[Item]
    targets: Ints
    """(N,) class numbers."""
    classes: int
    """K."""
    train: Ints
    """Numbers of items, like `val` and `test`."""
    val: Ints
    test: Ints


@dataclass(frozen=True)
class Epoch:
    """One pass over the training rows."""

    loss: float
    validation: float


@dataclass(frozen=True)
class FinetuningResult:
    """The network of the best epoch, and its predictions of the validation and test rows."""

    state: Mapping[str, Tensor]
    val: npt.NDArray[np.float64]
    test: npt.NDArray[np.float64]
    """(n, K) probabilities."""
    epochs: Sequence[Epoch]
    cost: Cost
    """Of this process and of those whose state it resumed; rows stored beforehand are in the cost of the examples."""
