"""What a plan would take, measured on one batch: said before hours are spent."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.core.cost import duration
from pipeline.core.sections import Embed, Plan
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.finetuning import examples, fitting
from pipeline.finetuning.examples import Live
from pipeline.finetuning.processes import Processes
from pipeline.finetuning.task import Task
from pipeline.networks import runtime
from pipeline.networks.backbones import Loaded

TIMED = 3
"""Steps that are timed, after one that is not; the least counts, for a busy machine only ever makes one longer."""
JUDGED = 1 / 3
"""A forward pass as a share of a training step, whose backward pass takes about twice as long."""


@dataclass(frozen=True)
class Pace:
    """Seconds per image of the parts of a training."""

    decode: float
    """Decoding and the frozen part."""
    train: float
    """A step of the trainable part."""


@dataclass(frozen=True)
class Forecast:
    """What a plan would take at most, for it may stop early."""

    training: float
    """Seconds of a training."""
    storing: float
    """Seconds of what it stores before, once for all trainings."""
    disk: str
    """What that takes of the disk, in words."""


def forecast(task: Task, loaded: Loaded, plan: Plan, settings: Embed) -> Forecast:
    """Time a batch, look up what the cache holds, and add up; nothing is written and no epoch is run.

    Raises:
        InputError: for whatever would stop the plan from starting.

    """
    missing, disk = _to_store(task, loaded, plan, settings)
    pace = _pace(task, loaded, plan, settings)
    begun = _to_embed(task, loaded, plan, settings) * (pace.decode + JUDGED * pace.train)
    images = len(task.train) // plan.batch_size * plan.batch_size
    trained = plan.epochs * pace.train * (images + JUDGED * len(task.val))
    if plan.cache_frozen:
        return Forecast(trained, begun + pace.decode * missing, disk)
    passes = plan.epochs * (images + len(task.val)) + len(task.test)
    return Forecast(trained + pace.decode * passes, begun, disk)


def summary(task: Task, loaded: Loaded, plan: Plan, settings: Embed) -> str:
    """Say what `finetune` would store, and how long it would take."""
    price = forecast(task, loaded, plan, settings)
    took = duration(price.storing + price.training)
    return f"{price.disk}at most {plan.epochs} epochs, about {took}; nothing was computed"


def _to_store(task: Task, loaded: Loaded, plan: Plan, settings: Embed) -> tuple[int, str]:
    if not plan.cache_frozen:
        return 0, ""
    items = examples.items_to_store(task, examples.stored_views(plan))
    cache = EmbeddingCache(settings.cache, examples.recipe_of(loaded, plan, settings))
    missing = len(cache.missing(examples.keys_to_store(items)))
    return missing, examples.disk_use(missing, loaded, plan, settings.cache) + "; "


def _to_embed(task: Task, loaded: Loaded, plan: Plan, settings: Embed) -> int:
    """Return how many images have to go through the frozen network for the classifier's start."""
    if plan.start != "logistic":
        return 0
    cache = EmbeddingCache(settings.cache, examples.recipe_of_embedded(loaded, plan, settings))
    return len(cache.missing(examples.keys_to_store(task.items)))


def _pace(task: Task, loaded: Loaded, plan: Plan, settings: Embed) -> Pace:
    frozen, _ = loaded.network.split_before(plan.unfreeze_from)
    forward = runtime.lazy(loaded.network.up_to(plan.unfreeze_from).eval(), settings.runtime) if len(frozen) else None
    live = Live(task, loaded.network, loaded.framing, plan, forward)
    trainer = fitting.trainer_of(task, live, loaded.network, plan, seed=0, metric="accuracy", processes=Processes())
    trainer.network.prepare(plan.epochs)
    batch = trainer.batch(task.train, 0, 0)
    rows = np.zeros(plan.batch_size, np.int64)
    decode = _seconds(lambda: live.batch(task.train[: plan.batch_size], rows + 1))
    train = _seconds(lambda: trainer.loss(batch).backward())  # type: ignore[no-untyped-call]
    return Pace(decode / plan.batch_size, train / plan.batch_size)


def _seconds(work: Callable[[], object]) -> float:
    work()
    timings = []
    for _ in range(TIMED):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():  # it has only been told what to do
            torch.cuda.synchronize()
        timings.append(time.perf_counter() - start)
    return min(timings)
