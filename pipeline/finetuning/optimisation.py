"""Optimisers, learning rate schedules and the moving average of fine-tuning."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.core.sections import Plan

MOMENTUM = 0.9
"""Of SGD."""
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 25e4
"""First and last fraction of the highest learning rate in one cycle: the defaults of PyTorch and fastai."""


def optimiser_of(blocks: nn.Sequential, classifier: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """Return the plan's optimiser with groups for the classifier and each block, the last block first.

    Earlier blocks are more general and learn more slowly, by a factor per block (Howard & Ruder 2018, section 3.1).
    Biases and normalisation have no weight decay.
    """
    parts = [(classifier, plan.classifier_learning_rate)]
    parts += [
        (block, plan.learning_rate * plan.layer_decay**depth) for depth, block in enumerate(reversed(list(blocks)))
    ]
    groups = [group for part, rate in parts for group in _groups(part.parameters(), rate, plan.weight_decay)]
    if plan.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups)


def _groups(parameters: Iterable[nn.Parameter], rate: float, decay: float) -> list[dict[str, Any]]:
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for one in parameters:
        (matrices if one.ndim > 1 else vectors).append(one)
    both = ((matrices, decay), (vectors, 0.0))
    return [{"params": some, "lr": rate, "highest": rate, "weight_decay": share} for some, share in both if some]


def set_rate(optimiser: torch.optim.Optimizer, fraction: float) -> None:
    """Set the learning rate of every group to a fraction of its highest."""
    for group in optimiser.param_groups:
        group["lr"] = group["highest"] * fraction


def cosine(step: int, total: int, warm_up: int) -> float:
    """Rise linearly, then fall along a cosine towards zero (Loshchilov & Hutter 2017, without restarts)."""
    if step < warm_up:
        return (step + 1) / warm_up
    return (1 + math.cos(math.pi * (step - warm_up + 1) / (total - warm_up + 1))) / 2


def one_cycle(step: int, total: int, warm_up: int) -> float:
    """Rise along a cosine from a small rate, then fall to a much smaller one (Smith & Topin 2018)."""
    if step < warm_up:
        return _between(ONE_CYCLE_START, 1, step / warm_up)
    return _between(1, ONE_CYCLE_END, (step - warm_up) / max(1, total - 1 - warm_up))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


SCHEDULES: Mapping[str, Callable[[int, int, int], float]] = {"cosine": cosine, "one_cycle": one_cycle}


def rate(step: int, total: int, plan: Plan) -> float:
    """Return the fraction of the highest learning rate at a step from 0 to total - 1."""
    warm_up = min(total - 1, max(1, round(plan.warm_up * total))) if plan.warm_up else 0
    return SCHEDULES[plan.schedule](step, total, warm_up)


def moving_average(network: nn.Module, plan: Plan) -> AveragedModel | None:
    """Return an exponential moving average of the network's weights, or None if the plan has none."""
    if not plan.average:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(plan.average), use_buffers=False)  # type: ignore[no-untyped-call]
