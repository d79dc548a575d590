"""The trainable loop: manifest -> Predictions.

The frozen blocks run once per image and view, and their activations are held in memory; only the blocks from
`unfreeze_from` on, and a new classifier, run at every step.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.atomic import replacing
from pipeline.errors import InputError, StateError
from pipeline.evaluation import metrics
from pipeline.images import Framing
from pipeline.nn import runtime
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
    images: int
    """Passes of an image through the network or a part of it."""


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

    def __init__(self, blocks: nn.Sequential, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.blocks, self.dropout, self.classifier = blocks, nn.Dropout(dropout), nn.Linear(width, classes)
        # Zero logits at first: the first steps then move the classifier, not the pre-trained features.
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, activations: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.classifier(self.dropout(average(self.blocks(activations))))
        return logits


def run(task: Task, backbone: Backbone, framing: Framing, plan: Plan, engine: str, metric: str, seed: int) -> Finetuned:
    """Train a plan; the best epoch is chosen by the validation metric, and test rows are only predicted at the end.

    Args:
        task: the data.
        backbone: pre-trained; its unfrozen blocks are changed in place.
        framing: what becomes of an image's shape.
        plan: what trains and how.
        engine: the runtime of the frozen part.
        metric: the validation metric that early stopping looks at.
        seed: of the classifier's dropout, the order and the views.

    Raises:
        InputError: if the block does not exist or the batch is larger than the training set.
        StateError: if the loss stops being a number.

    """
    if len(task.train) < plan.batch_size:
        got, most = plan.batch_size, len(task.train)
        raise InputError(f"params.yaml: plans: batch_size: got {got}, expected at most the {most} training images")
    torch.manual_seed(seed)
    frozen, blocks = backbone.split_before(plan.unfreeze_from)
    backbone.requires_grad_(False)
    blocks.requires_grad_(True)
    examples: Examples = (
        Activations(task, backbone.up_to(plan.unfreeze_from).eval(), framing, plan, engine)
        if len(frozen)
        else Pixels(task, backbone, framing, plan.flips)
    )
    width = backbone.blocks(torch.zeros(1, 3, framing.size, framing.size)).shape[1]
    network = Trainable(blocks, width, task.classes, plan.dropout).to(memory_format=torch.channels_last)
    epochs, images = _train(network, examples, task, plan, metric, seed)
    val, test = (_predict(network, examples, rows, plan.batch_size) for rows in (task.val, task.test))
    passes = examples.passes + images + len(task.val) + len(task.test)
    state = {
        **{f"backbone.{name}": value for name, value in backbone.state_dict().items()},
        **{f"classifier.{name}": value for name, value in network.classifier.state_dict().items()},
    }
    return Finetuned(state, val, test, epochs, passes)


def _train(
    network: Trainable, examples: Examples, task: Task, plan: Plan, metric: str, seed: int
) -> tuple[list[Epoch], int]:
    """Run the epochs and leave the best one's state in the network; return the curve and the images trained on."""
    generator = np.random.default_rng(seed)
    steps = len(task.train) // plan.batch_size
    optimiser = _optimiser(network, plan)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(_rate, total=plan.epochs * steps))
    epochs: list[Epoch] = []
    best, best_score, waited, images = _copy(network), -math.inf, 0, 0
    bar = tqdm(total=plan.epochs * steps, desc="fine-tune", unit="step", disable=None)
    for number in range(1, plan.epochs + 1):
        losses: list[float] = []
        for rows in _order(task.train, steps, plan.batch_size, generator):
            views = generator.integers(len(VIEWS[plan.flips]), size=len(rows))
            loss = _step(network, examples.batch(rows, views), torch.from_numpy(task.targets[rows]), plan, optimiser)
            if not math.isfinite(loss):
                raise StateError(
                    f"loss: got {loss} in epoch {number}, step {len(losses) + 1}, at learning rate "
                    f"{schedule.get_last_lr()[0]:.2g}; expected a number: lower plans.*.learning_rate"
                )
            schedule.step()
            losses.append(loss)
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", validation=f"{best_score:.3f}" if epochs else "-", refresh=False)
        probability = _predict(network, examples, task.val, plan.batch_size)
        score = metrics.value(metric, task.targets[task.val], probability.argmax(axis=1), task.classes)
        images += steps * plan.batch_size + len(task.val)
        epochs.append(Epoch(float(np.mean(losses)), score))
        if score > best_score:
            best, best_score, waited = _copy(network), score, 0
        else:
            waited += 1
            if waited >= plan.patience:
                break
    bar.close()
    network.load_state_dict(best)
    return epochs, images


def _rate(step: int, total: int) -> float:
    """Return the fraction of the learning rate at a step: a linear warm-up over a fifth, then a cosine to zero."""
    warm_up = max(1, total // 5)
    if step < warm_up:
        return (step + 1) / warm_up
    return (1 + math.cos(math.pi * (step - warm_up + 1) / (total - warm_up + 1))) / 2


def _order(train: Ints, steps: int, batch_size: int, generator: np.random.Generator) -> Iterator[Ints]:
    """Yield an epoch's batches: a new order each time, the remainder left for another epoch."""
    shuffled = generator.permutation(train)
    for step in range(steps):
        yield shuffled[step * batch_size : (step + 1) * batch_size]


def _optimiser(network: Trainable, plan: Plan) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": list(network.blocks.parameters()), "lr": plan.learning_rate},
        {"params": list(network.classifier.parameters()), "lr": plan.classifier_learning_rate},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=plan.weight_decay)


def _step(network: Trainable, batch: Tensor, targets: Tensor, plan: Plan, optimiser: torch.optim.Optimizer) -> float:
    network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # the common base has no public name
            module.eval()  # batches are small: the pre-trained statistics are the better ones
    optimiser.zero_grad()
    loss = nn.functional.cross_entropy(network(batch), targets, label_smoothing=plan.label_smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach())


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
