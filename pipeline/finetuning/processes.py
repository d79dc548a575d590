"""Several processes that train one network together, started by `torchrun`: one per device, or on the CPU in tests."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed, nn

from pipeline.networks import runtime

TIMEOUT = timedelta(hours=12)
"""How long a process waits for the others; they share the pass through the frozen part, which can take hours."""

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Processes:
    """One process among those that train together; by default it is the only one."""

    rank: int = 0
    number: int = 1

    @property
    def first(self) -> bool:
        """Whether this process shows progress and writes files."""
        return self.rank == 0

    def share(self, rows: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Return this process's part of some rows."""
        return rows[self.rank :: self.number]

    def add(self, values: Tensor) -> Tensor:
        """Sum the values of all processes, in place."""
        if self.number > 1:
            distributed.all_reduce(values)
        return values

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients of all processes in one message.

        DistributedDataParallel needs a fixed set of trained parameters; gradual unfreezing changes it.
        """
        if self.number == 1:
            return
        gradients = [one.grad for one in parameters if one.grad is not None]
        together = self.add(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(together, [one.numel() for one in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def wait(self) -> None:
        """Wait until all processes have come to this point."""
        if self.number > 1:
            distributed.barrier()


@contextmanager
def started() -> Iterator[Processes]:
    """Join the processes that `torchrun` has started, if any, and leave them at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    settings: dict[str, Any] = {"backend": "gloo", "timeout": TIMEOUT}
    if torch.cuda.is_available():
        torch.cuda.set_device(runtime.device())
        settings["backend"] = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(**settings)
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
