"""Optimisers and schedules, against PyTorch's own."""

import pytest
import torch
from torch import nn

from pipeline.core.sections import Plan
from pipeline.finetuning import optimisation


def plan(**changes: object) -> Plan:
    return Plan.model_validate({"unfreeze_from": "stem", **changes})


def optimiser() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
@pytest.mark.parametrize("warm_up", [0.0, 0.2, 0.9])
@pytest.mark.parametrize("total", [1, 2, 5, 40])
def test_the_rate_rises_to_one_and_falls_whatever_the_number_of_steps(
    total: int, warm_up: float, schedule: str
) -> None:
    rates = [optimisation.rate(step, total, plan(schedule=schedule, warm_up=warm_up)) for step in range(total)]
    peak = rates.index(max(rates))
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_one_cycle_is_pytorchs() -> None:
    driven = optimiser()
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        driven, max_lr=1.0, total_steps=50, pct_start=0.22, cycle_momentum=False
    )
    for step in range(50):
        expected = driven.param_groups[0]["lr"]
        assert optimisation.one_cycle(step, 50, 10) == pytest.approx(expected, abs=1e-9)
        driven.step()
        if step < 49:
            schedule.step()


def test_cosine_is_pytorchs_after_the_warm_up() -> None:
    driven = optimiser()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(driven, T_max=31)
    for step in range(30):
        driven.step()
        schedule.step()
        assert optimisation.cosine(10 + step, 40, 10) == pytest.approx(driven.param_groups[0]["lr"], abs=1e-9)
    assert [optimisation.cosine(step, 40, 10) for step in (0, 4, 9)] == [0.1, 0.5, 1.0]


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_earlier_blocks_learn_more_slowly_and_vectors_are_not_decayed(name: str) -> None:
    blocks = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)))
    chosen = plan(optimiser=name, learning_rate=0.1, layer_decay=0.5, classifier_learning_rate=1.0, weight_decay=0.3)
    made = optimisation.optimiser_of(blocks, nn.Linear(4, 2), chosen)
    rates = [(group["lr"], group["weight_decay"]) for group in made.param_groups]
    assert rates == [(1.0, 0.3), (1.0, 0.0), (0.1, 0.3), (0.1, 0.0), (0.05, 0.3), (0.05, 0.0)]
    optimisation.set_rate(made, 0.5)
    optimisation.set_rate(made, 0.1)
    assert [group["lr"] for group in made.param_groups] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.005, 0.005])


def test_the_average_follows_the_weights() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = optimisation.moving_average(network, plan(average=0.9))
    assert average is not None
    average.update_parameters(network)  # the first time copies
    nn.init.ones_(network.weight)
    average.update_parameters(network)
    assert average.module.weight.item() == pytest.approx(0.1)
    assert optimisation.moving_average(network, plan()) is None
