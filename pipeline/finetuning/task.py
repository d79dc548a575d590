"""What fine-tuning is given, and what it returns."""

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
    """What to learn: all items with their targets, and which rows are for what."""

    items: Sequence[Item]
    targets: Ints
    """(N,) class numbers."""
    classes: int
    train: Ints
    val: Ints
    test: Ints


@dataclass(frozen=True)
class Epoch:
    """One pass over the training rows."""

    loss: float
    validation: float


@dataclass(frozen=True)
class Finetuned:
    """The best epoch's network and what it says of the validation and test rows."""

    state: Mapping[str, Tensor]
    val: npt.NDArray[np.float64]
    test: npt.NDArray[np.float64]
    """(n, K) probabilities."""
    epochs: Sequence[Epoch]
    cost: Cost
    """Of this process, and those that it goes on from; that of what was stored beforehand stands with the examples."""
