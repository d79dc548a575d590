"""The plans' part of the label-efficiency curve: plans trained on parts of the training images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from pipeline.core.cost import Cost, duration
from pipeline.core.errors import RefusedError
from pipeline.core.params import Params
from pipeline.data.splits.subsets import Subset
from pipeline.evaluation.curves import CurveTrainings, Point
from pipeline.finetuning import examples, fitting, forecast, inputs
from pipeline.finetuning.checkpoints import Checkpoint, TrainingState
from pipeline.finetuning.processes import Processes
from pipeline.finetuning.task import Ints

Key = Mapping[str, Any]
"""Everything that decides a training, except for the subset."""


def train(
    params: Params, backbone: str, subsets: Sequence[Subset], progress: Callable[[str], object]
) -> CurveTrainings:
    """Train every plan of the curve on every subset; after each training, call `progress` with the plan.

    Each training takes as many steps as one on all images: with as many epochs, a small subset would be under-trained
    (Kolesnikov et al. 2020, section 3.3: the schedule does not shrink with the data). Finished trainings are kept
    outside DVC's outputs, so that a killed or extended curve trains only what is missing.

    Raises:
        InputError, StateError: as `fitting.run`.

    """
    trained = CurveTrainings([], {}, {})
    for plan in params.curve.plans:
        try:
            trained += _train_on_subsets(params, backbone, plan, subsets, progress)
        except RefusedError as error:
            trained += CurveTrainings([], {}, {plan: error.reason})
    return trained


def _train_on_subsets(
    params: Params, backbone: str, plan: str, subsets: Sequence[Subset], progress: Callable[[str], object]
) -> CurveTrainings:
    found, total, key = [], Cost(), inputs.training_key(params, plan, inputs.read(params, backbone))
    for subset in subsets:
        finished = _finished_training(key, subset)
        result = finished.read()
        if result is None:
            checkpoint = Checkpoint(_subset_key(key, subset))
            result = _train(params, backbone, plan, subset, checkpoint)
            finished.write(result)
            checkpoint.remove()
        found.append(Point(plan, len(subset.rows), subset.seed, result.tensors["decided"].numpy()))
        total += Cost(**result.facts["cost"])
        progress(plan)
    return CurveTrainings(found, {plan: total}, {})


def prices(params: Params, backbone: str, subsets: Sequence[Subset]) -> list[str]:
    """Estimate the time of each plan's unfinished trainings, or say why it is refused; only one batch is timed."""
    lines = []
    for plan in params.curve.plans:
        try:
            lines.append(_price(params, backbone, plan, subsets))
        except RefusedError as error:
            lines.append(f"{plan}: {error.reason}")
    return lines


def _price(params: Params, backbone: str, plan: str, subsets: Sequence[Subset]) -> str:
    given = inputs.read(params, backbone)
    key = inputs.training_key(params, plan, given)
    missing = sum(_finished_training(key, subset).read() is None for subset in subsets)
    if not missing:
        return f"{plan}: all {len(subsets)} trainings are kept from before"
    one = forecast.forecast(given.task, given.loaded, params.plan(plan), params.embed)
    return f"{plan}: {one.disk}{missing} trainings, about {duration(one.storing + missing * one.training)}"


def _finished_training(key: Key, subset: Subset) -> Checkpoint:
    """Return the checkpoint that holds the decisions of a finished training."""
    return Checkpoint({**_subset_key(key, subset), "of": "decisions"})


def _subset_key(key: Key, subset: Subset) -> Key:
    return {**key, "seed": subset.seed, "labelled": subset.rows.tolist()}


def _train(params: Params, backbone: str, plan: str, subset: Subset, checkpoint: Checkpoint) -> TrainingState:
    given, settings, metric = inputs.read(params, backbone), params.plan(plan), params.selection.metric
    task = replace(given.task, train=repeated(subset, len(given.task.train)))
    source = examples.examples_of(task, given.loaded, settings, params.embed, Processes())
    done = fitting.run(task, source, given.loaded.network, settings, metric, subset.seed, checkpoint)
    decided = np.concatenate([done.val, done.test]).argmax(axis=1)
    return TrainingState({"decided": torch.from_numpy(decided)}, {"epochs": [], "cost": asdict(done.cost)})


def repeated(subset: Subset, number: int) -> Ints:
    """Repeat the rows of a subset up to a number: each equally often, and some, chosen at random, once more."""
    extra = np.random.default_rng(subset.seed).permutation(subset.rows)[: number % len(subset.rows)]
    return np.concatenate([np.tile(subset.rows, number // len(subset.rows)), extra]).astype(np.int64)
