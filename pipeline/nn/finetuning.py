"""The trainable loop: manifest -> Predictions.

The frozen blocks run once per image and view, and their activations are held in memory; only the blocks from
`unfreeze_from` on, and a new classifier, run at every step.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.atomic import replacing
from pipeline.cost import Clock, Cost
from pipeline.errors import InputError, StateError
from pipeline.evaluation import metrics
from pipeline.images import Framing
from pipeline.nn import checkpoints, optimisation, runtime
from pipeline.nn.checkpoints import Checkpoint, Saved
from pipeline.nn.embedding import Item, load
from pipeline.nn.network import Backbone, Prefix, average
from pipeline.params import Plan

# The axes of (B, C, H, W) that each view of an image flips; the first view is the image itself.
VIEWS: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "horizontal": ((), (3,)),
    "both": ((), (3,), (2,), (2, 3)),
}

Ints = npt.NDArray[np.int64]


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
    """Of all processes that had a part in it."""


class Examples(Protocol):
    """Where the trainable part's input comes from."""

    passes: int
    """Images pushed through the frozen part so far."""

    def batch(self, rows: Ints, views: Ints) -> Tensor:
        """Return the input of the trainable part for some rows, each in one view: (B, C, H, W) float32."""


class Pixels:
    """Nothing is frozen: images are decoded anew for every batch, so memory does not grow with the data."""

    def __init__(self, task: Task, backbone: Backbone, framing: Framing, flips: str) -> None:
        self.task, self.backbone, self.framing, self.flips = task, backbone, framing, VIEWS[flips]
        self.passes = 0

    def batch(self, rows: Ints, views: Ints) -> Tensor:
        """Decode, flip and normalise."""
        pixels = [np.flip(load(self.task.items[row], self.framing), axis=tuple(axis - 1 for axis in self.flips[one]))
                  for row, one in zip(rows, views, strict=True)]  # fmt: skip
        images = torch.from_numpy(np.stack(pixels))
        return self.backbone.normalise(images).contiguous(memory_format=torch.channels_last)


class Activations:
    """The frozen part's output, float16 in memory: once per image, and once per view for training images."""

    def __init__(self, task: Task, frozen: Prefix, framing: Framing, plan: Plan, engine: str) -> None:
        self.passes = 0
        flips = VIEWS[plan.flips]
        self.place = {(row, 0): place for place, row in enumerate(range(len(task.items)))}
        for one in range(1, len(flips)):
            self.place.update({(int(row), one): len(self.place) + n for n, row in enumerate(task.train)})
        forward: runtime.Forward | None = None
        self.stored: npt.NDArray[np.float16] | None = None
        pairs = list(self.place)
        bar = tqdm(total=len(pairs), desc="frozen part", unit="image", disable=None)
        for start in range(0, len(pairs), plan.batch_size):
            some = pairs[start : start + plan.batch_size]
            pixels = np.zeros((plan.batch_size, 3, framing.size, framing.size), np.uint8)
            for n, (row, one) in enumerate(some):
                pixels[n] = np.flip(load(task.items[row], framing), axis=tuple(axis - 1 for axis in flips[one]))
            forward = forward or runtime.prepare(frozen, engine, pixels)
            output = forward(pixels)[: len(some)]
            if self.stored is None:
                self.stored = np.empty((len(pairs), *output.shape[1:]), np.float16)
            self.stored[start : start + len(some)] = output
            self.passes += len(some)
            bar.update(len(some))
        bar.close()

    def batch(self, rows: Ints, views: Ints) -> Tensor:
        """Look up."""
        assert self.stored is not None  # noqa: S101  # filled by __init__: a task has images
        places = [self.place[int(row), int(one)] for row, one in zip(rows, views, strict=True)]
        return torch.from_numpy(self.stored[places]).float().contiguous(memory_format=torch.channels_last)


class Trainable(nn.Module):
    """The unfrozen blocks, pooling and a new classifier: (B, C, h, w) -> logits (B, K)."""

    def __init__(self, blocks: nn.Sequential, width: int, classes: int, plan: Plan) -> None:
        super().__init__()
        self.blocks, self.dropout, self.classifier = blocks, nn.Dropout(plan.dropout), nn.Linear(width, classes)
        self.plan = plan
        # Zero logits at first: the first steps then move the classifier, not the pre-trained features.
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, activations: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.classifier(self.dropout(average(self.blocks(activations))))
        return logits

    def prepare(self, epoch: int) -> None:
        """Make ready for the training steps of an epoch, counted from 0: thaw the last blocks, keep the others still.

        One more block every `thaw_epochs`, the classifier alone at first (Howard & Ruder 2018, section 3.3).
        """
        self.train()
        thawed = epoch // self.plan.thaw_epochs if self.plan.thaw_epochs else len(self.blocks)
        for depth, block in enumerate(reversed(list(self.blocks))):
            block.requires_grad_(depth < thawed)
            block.train(depth < thawed)
        if self.plan.batch_norm == "frozen":  # batches are small: the pre-trained statistics are the better ones
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):  # the common base has no public name
                    module.eval()


def run(
    task: Task,
    backbone: Backbone,
    framing: Framing,
    plan: Plan,
    engine: str,
    metric: str,
    seed: int,
    checkpoint: Checkpoint,
) -> Finetuned:
    """Train a plan; the best epoch is chosen by the validation metric, and test rows are only predicted at the end.

    Args:
        task: the data.
        backbone: pre-trained; its unfrozen blocks are changed in place.
        framing: what becomes of an image's shape.
        plan: what trains and how.
        engine: the runtime of the frozen part.
        metric: the validation metric that early stopping looks at.
        seed: of the classifier's dropout, the order and the views.
        checkpoint: where the state after each epoch is kept; what lies there is gone on with.

    Raises:
        InputError: if the block does not exist or the batch is larger than the training set.
        StateError: if the loss stops being a number.

    """
    if len(task.train) < plan.batch_size:
        got, most = plan.batch_size, len(task.train)
        raise InputError(f"params.yaml: plans: batch_size: got {got}, expected at most the {most} training images")
    clock = Clock()
    torch.manual_seed(seed)
    frozen, blocks = backbone.split_before(plan.unfreeze_from)
    backbone.requires_grad_(False)
    examples: Examples = (
        Activations(task, backbone.up_to(plan.unfreeze_from).eval(), framing, plan, engine)
        if len(frozen)
        else Pixels(task, backbone, framing, plan.flips)
    )
    width = backbone.blocks(torch.zeros(1, 3, framing.size, framing.size)).shape[1]
    network = Trainable(blocks, width, task.classes, plan).to(memory_format=torch.channels_last)
    trainer = _Trainer(network, examples, task, plan, seed)
    epochs = _train(trainer, checkpoint, metric, clock)
    val, test = (_predict(network, examples, rows, plan.batch_size) for rows in (task.val, task.test))
    cost = clock.read()
    trained = len(epochs) * (trainer.batches * plan.batch_size + len(task.val))
    cost.images += examples.passes + trained + len(task.val) + len(task.test)
    state = {
        **{f"backbone.{name}": value for name, value in backbone.state_dict().items()},
        **{f"classifier.{name}": value for name, value in network.classifier.state_dict().items()},
    }
    return Finetuned(state, val, test, epochs, cost)


def _train(trainer: "_Trainer", checkpoint: Checkpoint, metric: str, clock: Clock) -> list[Epoch]:
    """Run the epochs that are left and leave the best one's state in the network; return the curve."""
    task, plan = trainer.task, trainer.plan
    epochs, best = trainer.resume(checkpoint, clock)
    total = plan.epochs * trainer.batches
    with tqdm(total=total, initial=len(epochs) * trainer.batches, desc="fine-tune", unit="batch", disable=None) as bar:
        while len(epochs) < plan.epochs and len(epochs) - best_epoch(epochs) < plan.patience:
            losses: list[float] = []
            for loss in trainer.epoch(len(epochs)):
                losses.append(loss)
                so_far = f"{epochs[best_epoch(epochs) - 1].validation:.3f}" if epochs else "-"
                bar.set_postfix(loss=f"{loss:.3f}", validation=so_far, refresh=False)
                bar.update()
            probability = _predict(trainer.judged, trainer.examples, task.val, plan.batch_size)
            score = metrics.value(metric, task.targets[task.val], probability.argmax(axis=1), task.classes)
            epochs.append(Epoch(float(np.mean(losses)), score))
            if best_epoch(epochs) == len(epochs):
                best = _copy(trainer.judged)
            trainer.keep(checkpoint, epochs, best, clock)
    trainer.network.load_state_dict(best)
    return epochs


def best_epoch(epochs: Sequence[Epoch]) -> int:
    """Return the number, from 1, of the first epoch with the highest validation score; 0 before there is one."""
    scores = [epoch.validation for epoch in epochs]
    return scores.index(max(scores)) + 1 if scores else 0


class _Trainer:
    """Takes the steps. What is random in a batch follows from the seed, the epoch and the batch's number alone."""

    def __init__(self, network: Trainable, examples: Examples, task: Task, plan: Plan, seed: int) -> None:
        self.network, self.examples, self.task, self.plan, self.seed = network, examples, task, plan, seed
        self.batches = len(task.train) // plan.batch_size
        self.optimiser = optimisation.optimiser_of(network.blocks, network.classifier, plan)
        self.average = optimisation.averaged(network, plan)
        self.weight = _class_weight(plan, task)

    @property
    def judged(self) -> Trainable:
        """The network whose predictions count."""
        return self.network if self.average is None else cast("Trainable", self.average.module)

    def keep(self, checkpoint: Checkpoint, epochs: Sequence[Epoch], best: Mapping[str, Tensor], clock: Clock) -> None:
        """Write the state after an epoch."""
        parts: dict[str, Mapping[str, Tensor]] = {
            "network": self.network.state_dict(),
            "best": best,
            "optimiser": checkpoints.of_optimiser(self.optimiser),
            "average": self.average.state_dict() if self.average is not None else {},
        }
        tensors = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
        facts = {"epochs": [asdict(epoch) for epoch in epochs], "cost": asdict(clock.read())}
        checkpoint.write(Saved(tensors, facts))

    def resume(self, checkpoint: Checkpoint, clock: Clock) -> tuple[list[Epoch], Mapping[str, Tensor]]:
        """Take up the state that was kept, if there is one; return the epochs so far and the best one's state."""
        saved = checkpoint.read()
        if saved is None:
            return [], _copy(self.network)
        self.network.load_state_dict(checkpoints.part(saved.tensors, "network"))
        checkpoints.into_optimiser(self.optimiser, checkpoints.part(saved.tensors, "optimiser"))
        if self.average is not None:
            self.average.load_state_dict(checkpoints.part(saved.tensors, "average"))
        clock.before = Cost(**saved.facts["cost"])
        return [Epoch(**epoch) for epoch in saved.facts["epochs"]], checkpoints.part(saved.tensors, "best")

    def epoch(self, number: int) -> Iterator[float]:
        """Train on every row once, in a new order, the remainder left for another epoch; yield each batch's loss."""
        size, together = self.plan.batch_size, self.plan.accumulate
        order = np.random.default_rng([self.seed, number]).permutation(self.task.train)
        self.network.prepare(number)
        for batch in range(self.batches):
            rows, place = order[batch * size : (batch + 1) * size], batch % together
            loss = self._loss(rows, np.random.default_rng([self.seed, number, batch]))
            self._require_finite(float(loss.detach()), number, batch)
            (loss / min(together, self.batches - batch + place)).backward()  # type: ignore[no-untyped-call]
            if place + 1 == together or batch + 1 == self.batches:
                self._step(number, batch)
            yield float(loss.detach())

    def _loss(self, rows: Ints, generator: np.random.Generator) -> Tensor:
        torch.manual_seed(int(generator.integers(2**63)))  # of dropout
        views = generator.integers(len(VIEWS[self.plan.flips]), size=len(rows))
        inputs, targets = self.examples.batch(rows, views), torch.from_numpy(self.task.targets[rows])
        if not self.plan.mixup:
            return self._cross_entropy(self.network(inputs), targets)
        # Zhang et al. 2018; where blocks are frozen, it is their output that is mixed (Verma et al. 2019).
        share = float(generator.beta(self.plan.mixup, self.plan.mixup))
        other = torch.from_numpy(generator.permutation(len(rows)))
        logits = self.network(share * inputs + (1 - share) * inputs[other])
        return share * self._cross_entropy(logits, targets) + (1 - share) * self._cross_entropy(logits, targets[other])

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        smoothing = self.plan.label_smoothing
        return nn.functional.cross_entropy(logits, targets, self.weight, label_smoothing=smoothing)

    def _step(self, epoch: int, batch: int) -> None:
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

    def _require_finite(self, loss: float, epoch: int, batch: int) -> None:
        if not math.isfinite(loss):
            rate = self.plan.learning_rate * self._rate(epoch, batch)
            raise StateError(
                f"loss: got {loss} in epoch {epoch + 1}, step {batch + 1}, at learning rate {rate:.2g}; "
                "expected a number: lower plans.*.learning_rate"
            )


def _class_weight(plan: Plan, task: Task) -> Tensor | None:
    """Weigh classes inversely to their number of training images, 1 on average over these."""
    if plan.class_weight is None:
        return None
    counts = np.bincount(task.targets[task.train], minlength=task.classes)
    return torch.from_numpy((len(task.train) / (task.classes * counts)).astype(np.float32))


def _predict(network: Trainable, examples: Examples, rows: Ints, batch_size: int) -> npt.NDArray[np.float64]:
    """Return the probabilities of some rows, seen as they are: (n, K)."""
    network.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            some = rows[start : start + batch_size]
            logits = network(examples.batch(some, np.zeros(len(some), np.int64)))
            parts.append(logits.double().softmax(dim=1).numpy())
    return np.concatenate(parts)


def save(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a fine-tuned network as safetensors, atomically; equal tensors give equal bytes."""
    content = safetensors.torch.save({name: value.contiguous() for name, value in state.items()})
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
