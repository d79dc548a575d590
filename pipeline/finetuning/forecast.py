"""The time and disk that a plan would take, estimated from one batch before hours are spent."""

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

TIMED_STEPS = 3
"""Steps that are timed, after one to warm up; the fastest counts, because other work only makes steps slower."""
FORWARD_SHARE = 1 / 3
"""A forward pass as a share of a training step: the backward pass takes about twice as long."""


@dataclass(frozen=True)
class Pace:
    """Seconds per image of the parts of a training."""

    decode: float
    """For decoding and the frozen part."""
    train: float
    """For a training step of the other blocks."""


@dataclass(frozen=True)
class Forecast:
    """What a plan would take if it does not stop early: no bound, for other work makes steps slower."""

    training: float
    """Seconds of one training."""
    storing: float
    """Seconds of storing rows beforehand, once for all trainings."""
    disk: str
    """The disk that the rows take, in words."""


def forecast(task: Task, loaded: Loaded, plan: Plan, settings: Embed) -> Forecast:
    """Time a batch and look up what the cache holds; nothing is written and no epoch is run.

    Raises:
        InputError: for the problems that would stop the plan from starting.

    """
    missing, disk = _missing_rows(task, loaded, plan, settings)
    pace = _pace(task, loaded, plan, settings)
    embedding = _missing_embeddings(task, loaded, plan, settings) * (pace.decode + FORWARD_SHARE * pace.train)
    images = len(task.train) // plan.batch_size * plan.batch_size
    training = plan.epochs * pace.train * (images + FORWARD_SHARE * len(task.val))
    if plan.cache_frozen:
        return Forecast(training, embedding + pace.decode * missing, disk)
    passes = plan.epochs * (images + len(task.val)) + len(task.test)
    return Forecast(training + pace.decode * passes, embedding, disk)


def summary(task: Task, loaded: Loaded, plan: Plan, settings: Embed) -> str:
    """Say what fine-tuning would store, and how long it would take."""
    price = forecast(task, loaded, plan, settings)
    took = duration(price.storing + price.training)
    return f"{price.disk}at most {plan.epochs} epochs, about {took}; nothing was computed"


def _missing_rows(task: Task, loaded: Loaded, plan: Plan, settings: Embed) -> tuple[int, str]:
    if not plan.cache_frozen:
        return 0, ""
    items = examples.items_to_store(task, examples.stored_views(plan))
    cache = EmbeddingCache(settings.cache, examples.recipe_of(loaded, plan, settings))
    missing = len(cache.missing(examples.keys_to_store(items)))
    return missing, examples.disk_use(missing, loaded, plan, settings.cache) + "; "


def _missing_embeddings(task: Task, loaded: Loaded, plan: Plan, settings: Embed) -> int:
    """Return how many images must go through the frozen network for the start of the classifier."""
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
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the calls return before the GPU has finished
        timings.append(time.perf_counter() - start)
    return min(timings)
