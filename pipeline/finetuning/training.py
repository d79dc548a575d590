"""Training steps, in one process or shared by several."""

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.core.cost import Clock, Cost
from pipeline.core.errors import RefusedError
from pipeline.core.sections import Plan
from pipeline.finetuning import checkpoints, optimisation
from pipeline.finetuning.checkpoints import Checkpoint, TrainingState
from pipeline.finetuning.examples import Examples
from pipeline.finetuning.network import Trainable
from pipeline.finetuning.processes import Processes
from pipeline.finetuning.task import Epoch, Ints, Task
from pipeline.networks import runtime

Result = TypeVar("Result")


@dataclass(frozen=True)
class Batch:
    """One process's part of a batch; all random numbers were drawn for the whole batch."""

    inputs: Tensor
    """(b, C, h, w)."""
    targets: Tensor
    """(b,)."""
    other: Tensor
    """(b,) targets of the images that are mixed in; without mixup the same as `targets`."""
    share: float
    """The weight of `targets` against `other`, from 0 to 1."""
    weights: tuple[float, float]
    """Sums of the class weights over `targets`, and over `other`, of the whole batch."""
    dropout: Tensor | None
    seed: int
    """Of random numbers inside the blocks, such as stochastic depth."""


class Trainer:
    """Trains a network, after moving it to the available device, in batches that all processes share.

    Order, views, mixup and dropout depend only on the seed, the epoch and the number of the batch.
    """

    def __init__(
        self, network: Trainable, examples: Examples, task: Task, plan: Plan, seed: int, processes: Processes
    ) -> None:
        self.device = runtime.device()
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.examples, self.task, self.plan, self.seed, self.processes = examples, task, plan, seed, processes
        self.batches = len(task.train) // plan.batch_size
        self.optimiser = optimisation.optimiser_of(network.blocks, network.classifier, plan)
        self.average = optimisation.moving_average(network, plan)
        self.class_weight = class_weight(plan, task)

    @property
    def scored_network(self) -> Trainable:
        """The network that predicts: the moving average, if the plan has one."""
        return self.network if self.average is None else cast("Trainable", self.average.module)

    def epoch(self, number: int) -> Iterator[float]:
        """Train on whole batches of the rows in a new order, and yield the loss of each batch.

        Raises:
            RefusedError: if a loss is not a number; that step is not taken.

        """
        together = self.plan.accumulate
        order = np.random.default_rng([self.seed, number]).permutation(self.task.train)
        self.network.prepare(number)
        for batch, inputs in enumerate(_prefetch(lambda batch: self.batch(order, number, batch), self.batches)):
            accumulated = batch % together
            loss = self.loss(inputs)
            value = float(self.processes.add(loss.detach().clone()))
            self.require_finite(value, number, batch)
            (loss / min(together, self.batches - batch + accumulated)).backward()  # type: ignore[no-untyped-call]
            if accumulated + 1 == together or batch + 1 == self.batches:
                self._step(number, batch)
            yield value

    def batch(self, order: Ints, epoch: int, batch: int) -> Batch:
        """Draw a batch and load this process's part of it."""
        size, task = self.plan.batch_size, self.task
        generator = np.random.default_rng([self.seed, epoch, batch])
        rows = order[batch * size : (batch + 1) * size]
        views = generator.integers(self.examples.views, size=size)
        share, other = 1.0, np.arange(size)
        if self.plan.mixup:  # Zhang et al. 2018; the output of frozen blocks is mixed, as in Verma et al. 2019
            share, other = float(generator.beta(self.plan.mixup, self.plan.mixup)), generator.permutation(size)
        seed = int(generator.integers(2**63))
        dropout = self.network.dropout(size, seed)
        mine = self.processes.share(np.arange(size))
        needed, place = np.unique(np.concatenate([mine, other[mine]]), return_inverse=True)
        inputs = self.examples.batch(rows[needed], views[needed])
        if self.plan.mixup:
            inputs = share * inputs[place[: len(mine)]] + (1 - share) * inputs[place[len(mine) :]]
        targets = task.targets[rows]
        weights = np.ones(task.classes) if self.class_weight is None else self.class_weight
        return Batch(
            inputs=self._on_device(inputs),
            targets=self._on_device(torch.from_numpy(targets[mine])),
            other=self._on_device(torch.from_numpy(targets[other[mine]])),
            share=share,
            weights=(float(weights[targets].sum()), float(weights[targets[other]].sum())),
            dropout=None if dropout is None else self._on_device(dropout[mine]),
            seed=seed,
        )

    def loss(self, batch: Batch) -> Tensor:
        """Return this process's part of the batch's mean loss; the parts of all processes add up to it."""
        torch.manual_seed(batch.seed)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.network(batch.inputs, batch.dropout).float()
        first, second = batch.weights
        loss = batch.share * self._cross_entropy(logits, batch.targets) / first
        if batch.share < 1:
            loss = loss + (1 - batch.share) * self._cross_entropy(logits, batch.other) / second
        return loss

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        weight = None if self.class_weight is None else torch.from_numpy(self.class_weight).to(logits.dtype).to(logits)
        smoothing = self.plan.label_smoothing
        return nn.functional.cross_entropy(logits, targets, weight, label_smoothing=smoothing, reduction="sum")

    def _step(self, epoch: int, batch: int) -> None:
        self.processes.add_gradients(self.network.parameters())
        optimisation.set_rate(self.optimiser, self._rate(epoch, batch))
        if self.plan.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.network)

    def _rate(self, epoch: int, batch: int) -> float:
        steps = math.ceil(self.batches / self.plan.accumulate)
        return optimisation.rate(epoch * steps + batch // self.plan.accumulate, self.plan.epochs * steps, self.plan)

    def require_finite(self, loss: float, epoch: int, batch: int) -> None:
        """Raise RefusedError with epoch, step and learning rate unless the loss is a finite number."""
        if not math.isfinite(loss):
            highest = self.plan.learning_rate if len(self.network.blocks) else self.plan.classifier_learning_rate
            rate = highest * self._rate(epoch, batch)
            raise RefusedError(
                f"loss: got {loss} in epoch {epoch + 1}, step {batch + 1}, at learning rate {rate:.2g}; "
                "expected a number: lower plans.*.learning_rate"
            )

    def predict(self, rows: Ints) -> npt.NDArray[np.float64]:
        """Return the probabilities of rows without augmentation, (n, K)."""
        network, size = self.scored_network.eval(), self.plan.batch_size
        found = torch.zeros(len(rows), self.task.classes, dtype=torch.float64)
        mine = self.processes.share(np.arange(len(rows)))
        parts = [mine[start : start + size] for start in range(0, len(mine), size)]
        loaded = _prefetch(lambda part: self.examples.batch(rows[parts[part]], np.zeros_like(parts[part])), len(parts))
        with torch.inference_mode():
            for part, inputs in zip(parts, loaded, strict=True):
                found[part] = network(self._on_device(inputs)).cpu().double().softmax(dim=1)
        return self.processes.add(found).numpy()

    def save(self, checkpoint: Checkpoint, epochs: list[Epoch], best: Mapping[str, Tensor], clock: Clock) -> None:
        """Write the state after an epoch."""
        parts: dict[str, Mapping[str, Tensor]] = {
            "network": self.network.state_dict(),
            "best": best,
            "optimiser": checkpoints.optimiser_tensors(self.optimiser),
            "average": self.average.state_dict() if self.average is not None else {},
        }
        tensors = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
        facts = {"epochs": [asdict(epoch) for epoch in epochs], "cost": asdict(clock.read())}
        checkpoint.write(TrainingState(tensors, facts))

    def resume(self, checkpoint: Checkpoint, clock: Clock) -> tuple[list[Epoch], Mapping[str, Tensor]]:
        """Load the state of a checkpoint, if it has one; return the epochs so far and the state of the best one."""
        saved = checkpoint.read()
        if saved is None:
            return [], copy_of_state(self.network)
        self.network.load_state_dict(checkpoints.part(saved.tensors, "network"))
        checkpoints.restore_optimiser(self.optimiser, checkpoints.part(saved.tensors, "optimiser"))
        if self.average is not None:
            self.average.load_state_dict(checkpoints.part(saved.tensors, "average"))
        clock.before = Cost(**saved.facts["cost"])
        return [Epoch(**epoch) for epoch in saved.facts["epochs"]], checkpoints.part(saved.tensors, "best")

    def _on_device(self, values: Tensor) -> Tensor:
        return values.to(self.device, non_blocking=True)


def class_weight(plan: Plan, task: Task) -> npt.NDArray[np.float64] | None:
    """Return class weights inverse to the number of training images, 1 on average over the images: (K,), or None."""
    if plan.class_weight is None:
        return None
    counts = np.bincount(task.targets[task.train], minlength=task.classes)
    return np.asarray(len(task.train) / (task.classes * counts))


def copy_of_state(network: nn.Module) -> dict[str, Tensor]:
    """Copy the state of a network."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _prefetch(make: Callable[[int], Result], number: int) -> Iterator[Result]:
    """Yield make(0), make(1), ...; each is made in another thread while the one before is in use."""
    with ThreadPoolExecutor(1) as pool:
        following: Future[Result] | None = None
        for item in range(number):
            made = (following or pool.submit(make, item)).result()
            following = pool.submit(make, item + 1) if item + 1 < number else None
            yield made
