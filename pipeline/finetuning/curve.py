"""Plans on parts of the training images: their share of the label-efficiency curve."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from pipeline.core.cost import Cost, duration
from pipeline.core.errors import RefusedError
from pipeline.core.params import Params
from pipeline.data.splits.subsets import Subset
from pipeline.evaluation.curves import Point, Trained
from pipeline.finetuning import examples, fitting, forecast, inputs
from pipeline.finetuning.checkpoints import Checkpoint, Saved
from pipeline.finetuning.processes import Processes
from pipeline.finetuning.task import Ints

Key = Mapping[str, Any]
"""All that decides a training, but for the subset."""


def train(params: Params, backbone: str, subsets: Sequence[Subset], progress: Callable[[str], object]) -> Trained:
    """Train every plan of the curve on every subset.

    Each training takes as many steps as one on all images, for a part that is seen as often as the whole would be
    under-trained (Kolesnikov et al. 2020, section 3.3: the schedule does not shrink with the data). What is finished is
    kept outside DVC's outputs, so that a killed or extended curve trains only what is missing.

    Args:
        params: with the plans.
        backbone: the network that they train.
        subsets: of the training images.
        progress: is told the plan of each training that is done.

    Raises:
        InputError, StateError: as `fitting.run`.

    """
    trained = Trained([], {}, {})
    for plan in params.curve.plans:
        try:
            trained += _on_all(params, backbone, plan, subsets, progress)
        except RefusedError as error:
            trained += Trained([], {}, {plan: error.reason})
    return trained


def _on_all(
    params: Params, backbone: str, plan: str, subsets: Sequence[Subset], progress: Callable[[str], object]
) -> Trained:
    found, total, key = [], Cost(), inputs.decisive(params, plan, inputs.read(params, backbone))
    for subset in subsets:
        kept = _kept(key, subset)
        saved = kept.read()
        if saved is None:
            checkpoint = Checkpoint(_of(key, subset))
            saved = _trained(params, backbone, plan, subset, checkpoint)
            kept.write(saved)
            checkpoint.remove()
        found.append(Point(plan, len(subset.rows), subset.seed, saved.tensors["decided"].numpy()))
        total += Cost(**saved.facts["cost"])
        progress(plan)
    return Trained(found, {plan: total}, {})


def prices(params: Params, backbone: str, subsets: Sequence[Subset]) -> list[str]:
    """Say what each plan's missing trainings would take, or why it is refused; one batch is timed, nothing is kept."""
    lines = []
    for plan in params.curve.plans:
        try:
            lines.append(_price(params, backbone, plan, subsets))
        except RefusedError as error:
            lines.append(f"{plan}: {error.reason}")
    return lines


def _price(params: Params, backbone: str, plan: str, subsets: Sequence[Subset]) -> str:
    given = inputs.read(params, backbone)
    key = inputs.decisive(params, plan, given)
    missing = sum(_kept(key, subset).read() is None for subset in subsets)
    if not missing:
        return f"{plan}: all {len(subsets)} trainings are kept from before"
    one = forecast.forecast(given.task, given.loaded, params.plan(plan), params.embed)
    return f"{plan}: {one.disk}{missing} trainings, at most {duration(one.storing + missing * one.training)}"


def _kept(key: Key, subset: Subset) -> Checkpoint:
    """Return the place of a finished training's decisions."""
    return Checkpoint({**_of(key, subset), "of": "decisions"})


def _of(key: Key, subset: Subset) -> Key:
    return {**key, "seed": subset.seed, "labelled": subset.rows.tolist()}


def _trained(params: Params, backbone: str, plan: str, subset: Subset, checkpoint: Checkpoint) -> Saved:
    given, settings, metric = inputs.read(params, backbone), params.plan(plan), params.selection.metric
    task = replace(given.task, train=repeated(subset, len(given.task.train)))
    source = examples.examples_of(task, given.loaded, settings, params.embed, Processes())
    done = fitting.run(task, source, given.loaded.network, settings, metric, subset.seed, checkpoint)
    decided = np.concatenate([done.val, done.test]).argmax(axis=1)
    return Saved({"decided": torch.from_numpy(decided)}, {"epochs": [], "cost": asdict(done.cost)})


def repeated(subset: Subset, number: int) -> Ints:
    """Return as many rows as asked for, each as often as any other, or once more: those are drawn."""
    extra = np.random.default_rng(subset.seed).permutation(subset.rows)[: number % len(subset.rows)]
    return np.concatenate([np.tile(subset.rows, number // len(subset.rows)), extra]).astype(np.int64)
