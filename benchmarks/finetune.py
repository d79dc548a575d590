"""Fine-tuning: an epoch on the stored frozen part against a plain loop, and our steps against a bare loop's."""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks import loops
from benchmarks.clone import REPOSITORY
from benchmarks.figures import Figure, at_least, at_most, seconds
from pipeline.commands import demo
from pipeline.core import stamps
from pipeline.core.sections import BackboneEntry, Embed, Plan
from pipeline.finetuning import fitting, optimisation
from pipeline.finetuning.examples import examples_of
from pipeline.finetuning.processes import Processes
from pipeline.finetuning.task import Task
from pipeline.finetuning.training import Trainer
from pipeline.networks import backbones
from pipeline.networks.backbones import Loaded
from pipeline.networks.frozen_pass import Item

BACKBONE, IMAGES, STEPS, EPOCHS, ROUNDS = "efficientnet_lite0", 640, 6, 8, 3
# The first trainable block -> an epoch's time at most, as a part of the plain loop's
BOUNDARIES = {"block5": 0.6, "block6": 0.3}
TOTAL, THROUGHPUT = 0.75, 0.9


def measure() -> Iterator[Figure]:
    """Measure in a folder of its own, with the demo's images and its packaged weights."""
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        for boundary, bound in BOUNDARIES.items():
            yield from _against_a_plain_loop(boundary, bound)
        yield from _throughput("stem", cached=False)
        yield from _throughput("block5", cached=True)
        os.chdir(REPOSITORY)


@dataclass(frozen=True)
class Made:
    """A trainer, what it trains on, and how long that took to store."""

    loaded: Loaded
    task: Task
    plan: Plan
    trainer: Trainer
    storing: float


def _made(boundary: str, images: int, *, cached: bool) -> Made:
    plan = Plan.model_validate(
        {"unfreeze_from": boundary, "cache_frozen": cached, "augment": {"flips": "both"}, "epochs": EPOCHS}
    )
    paths = sorted((demo.package_data() / "images").glob("*.png"))[:images]
    items = [Item(path, stamps.sha256_file(path)) for path in paths]
    rows = np.arange(images)
    task = Task(items, rows % 2, 2, rows, rows[:0], rows[:0])
    loaded, settings = backbones.load(BACKBONE, BackboneEntry()), Embed(runtime="openvino", cache=Path("cache"))
    made = []
    storing = seconds(lambda: made.append(examples_of(task, loaded, plan, settings, Processes())))
    trainer = fitting.trainer_of(task, made[0], loaded.network, plan, "accuracy", 0, Processes())
    return Made(loaded, task, plan, trainer, storing)


def _against_a_plain_loop(boundary: str, bound: float) -> Iterator[Figure]:
    """Alternate epochs of both; the fastest of each counts, for a busy machine only ever makes one slower."""
    made, other = _made(boundary, IMAGES, cached=True), backbones.load(BACKBONE, BackboneEntry())
    paths = [item.path for item in made.task.items]
    plain = [
        loops.finetuning(paths, made.task.targets.tolist(), other.network, other.framing.size, boundary, workers)
        for workers in (0, 1, 2)
    ]
    ours, theirs = [], []
    for number in range(ROUNDS):
        ours.append(seconds(lambda number=number: sum(made.trainer.epoch(number))))  # type: ignore[misc]
        theirs += [seconds(epoch) for epoch in plain]
    epoch, loop = min(ours), min(theirs)
    rates = f"{IMAGES / epoch:.0f} against {IMAGES / loop:.0f} images/s"
    yield at_most(f"epoch on the stored part before {boundary}, of a plain loop's ({rates})", epoch / loop, "x", bound)
    total = (made.storing + EPOCHS * epoch) / (EPOCHS * loop)
    stored = f"storing 4 views of {IMAGES} images took {made.storing:.0f} s"
    yield at_most(f"{EPOCHS} epochs before {boundary} with that pass, of a plain loop's ({stored})", total, "x", TOTAL)


def _throughput(boundary: str, *, cached: bool) -> Iterator[Figure]:
    """Alternate some of our steps with as many of a loop that has its tensors in memory and does nothing else."""
    made = _made(boundary, STEPS * 32, cached=cached)
    bare = _bare_loop(made)
    ours, theirs = [], []
    for number in range(ROUNDS):
        ours.append(seconds(lambda number=number: sum(made.trainer.epoch(number))))  # type: ignore[misc]
        theirs.append(seconds(bare))
    where = "stored part" if cached else "decoding"
    name = f"steps from {boundary}, {where} included, of a bare loop's ({STEPS * 32 / min(theirs):.0f} images/s)"
    yield at_least(name, min(theirs) / min(ours), "x", THROUGHPUT)


def _bare_loop(made: Made) -> Callable[[], None]:
    network, task = made.trainer.network, made.task
    optimiser = optimisation.optimiser_of(network.blocks, network.classifier, made.plan)
    rows = np.arange(32)
    inputs = [made.trainer.examples.batch(rows + 32 * step, np.zeros_like(rows)) for step in range(STEPS)]
    targets = torch.from_numpy(task.targets[:32])

    def loop() -> None:
        for batch in inputs:
            nn.functional.cross_entropy(network(batch), targets).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            optimiser.zero_grad()

    return loop
