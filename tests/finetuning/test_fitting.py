import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.core.errors import InputError, RefusedError
from pipeline.core.sections import Plan
from pipeline.finetuning import fitting
from pipeline.finetuning.checkpoints import Checkpoint
from pipeline.finetuning.examples import examples_of
from pipeline.finetuning.network import Trainable
from pipeline.finetuning.processes import Processes
from pipeline.finetuning.task import FinetuningResult, Task
from pipeline.finetuning.training import Trainer
from tests.conftest import Project
from tests.finetuning.examples import loaded, network, plan

RUNS = itertools.count()
LEARNS = {"epochs": 12, "patience": 12, "learning_rate": 0.01, "classifier_learning_rate": 0.05}


def run(project: Project, task: Task, chosen: Plan, seed: int = 0, place: Checkpoint | None = None) -> FinetuningResult:
    backbone = loaded(project)
    inputs = examples_of(task, backbone, chosen, project.write().embed, Processes())
    place = place or Checkpoint({"run": next(RUNS)}, Path("checkpoints"))
    return fitting.run(task, inputs, backbone.network, chosen, "accuracy", seed, place)


def test_frozen_blocks_and_all_batch_norm_statistics_stay_as_they_were(project: Project, task: Task) -> None:
    before = {name: value.clone() for name, value in network(project).state_dict().items()}
    state = run(project, task, plan(epochs=2)).state
    changed = {name for name, value in before.items() if not torch.equal(value, state[f"backbone.{name}"])}
    assert changed
    assert all(name.startswith("blocks.second") and "running" not in name for name in changed)


def test_the_stem_plan_trains_everything(project: Project, task: Task) -> None:
    before = {name: value.clone() for name, value in network(project).state_dict().items()}
    state = run(project, task, plan(unfreeze_from="first", epochs=1)).state
    trained = [name for name, _ in network(project).named_parameters()]
    assert all(not torch.equal(before[name], state[f"backbone.{name}"]) for name in trained)


@pytest.mark.processors
def test_a_seed_repeats_and_another_does_not(project: Project, task: Task) -> None:
    one, two, other = (run(project, task, plan(), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.test, two.test)
    assert (one.test != other.test).any()


def test_it_learns(project: Project, task: Task) -> None:
    done = run(project, task, plan(epochs=12, learning_rate=0.01, classifier_learning_rate=0.05, patience=12))
    assert (done.test.argmax(axis=1) == task.targets[task.test]).mean() > 0.8


def test_the_best_validation_epoch_is_the_one_that_predicts(project: Project, task: Task) -> None:
    done = run(project, task, plan(epochs=8, learning_rate=0.05, patience=8))
    accuracy = (done.val.argmax(axis=1) == task.targets[task.val]).mean()
    assert accuracy == pytest.approx(max(epoch.validation for epoch in done.epochs))


def test_it_stops_when_validation_no_longer_improves(project: Project, task: Task) -> None:
    done = run(project, task, plan(epochs=50, patience=2, learning_rate=1e-9, classifier_learning_rate=1e-9))
    scores = [epoch.validation for epoch in done.epochs]
    assert len(scores) == scores.index(max(scores)) + 1 + 2 < 50


def test_test_rows_never_influence_training(project: Project, task: Task) -> None:
    scrambled = task.targets.copy()
    scrambled[task.test] = 0
    other = Task(task.items, scrambled, task.classes, task.train, task.val, task.test)
    np.testing.assert_array_equal(run(project, task, plan()).test, run(project, other, plan()).test)


def test_the_classifier_plan_leaves_every_block_as_it_was(project: Project, task: Task) -> None:
    before = network(project).state_dict()
    done = run(project, task, plan(unfreeze_from="classifier", epochs=2))
    assert all(torch.equal(value, done.state[f"backbone.{name}"]) for name, value in before.items())
    assert done.state["classifier.weight"].any()


@pytest.fixture(scope="module")
def plain() -> dict[str, np.ndarray]:
    """Hold the test predictions of the plan without any change, by its first trainable block."""
    return {}


@pytest.mark.parametrize(
    "changes",
    [
        {"optimiser": "sgd", "learning_rate": 0.01},
        {"schedule": "one_cycle"},
        {"average": 0.5},
        {"mixup": 0.2},
        {"class_weight": "balanced"},
        {"clip": 0.01},
        {"accumulate": 2},
        {"batch_norm": "trained"},
        {"layer_decay": 0.5, "unfreeze_from": "first"},
        {"thaw_epochs": 4},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_setting_learns_repeats_and_makes_a_difference(
    project: Project, task: Task, changes: dict[str, object], plain: dict[str, np.ndarray]
) -> None:
    fewer = replace(task, train=task.train[2:])  # two of the first class, so that the classes differ in size
    one, two = (run(project, fewer, plan(**{**LEARNS, **changes})) for _ in range(2))
    assert (one.test.argmax(axis=1) == task.targets[task.test]).mean() > 0.8
    np.testing.assert_array_equal(one.test, two.test)
    start = str(changes.get("unfreeze_from", "second"))
    if start not in plain:
        plain[start] = run(project, fewer, plan(**{**LEARNS, "unfreeze_from": start})).test
    assert (one.test != plain[start]).any()


@pytest.mark.parametrize("accumulate", [2, 3])  # of two
def test_accumulated_batches_step_as_one_large_batch(project: Project, task: Task, accumulate: int) -> None:
    settings = {"unfreeze_from": "first", "epochs": 1, "augment": {"flips": "none"}, "dropout": 0, "optimiser": "sgd"}
    whole = run(project, task, plan(batch_size=len(task.train), **settings))
    parts = run(project, task, plan(batch_size=len(task.train) // 2, accumulate=accumulate, **settings))
    assert len(task.train) % 2 == 0
    np.testing.assert_allclose(parts.test, whole.test, atol=1e-5)


def test_blocks_thaw_from_the_last(project: Project) -> None:
    trained = Trainable(network(project).blocks, 16, 3, plan(unfreeze_from="first", thaw_epochs=2))
    seen = []
    for epoch in range(6):
        trained.prepare(epoch)
        seen.append([all(value.requires_grad for value in block.parameters()) for block in trained.blocks])
    assert seen == [[False, False]] * 2 + [[False, True]] * 2 + [[True, True]] * 2
    assert all(value.requires_grad for value in trained.classifier.parameters())


def test_trained_batch_norm_moves_its_statistics(project: Project, task: Task) -> None:
    before = network(project).state_dict()
    after = run(project, task, plan(batch_norm="trained")).state
    moved = {name for name in before if "running" in name and not torch.equal(before[name], after[f"backbone.{name}"])}
    assert moved == {name for name in before if "running" in name and name.startswith("blocks.second")}


def test_a_block_that_does_not_exist_is_answered_with_the_valid_ones(project: Project, task: Task) -> None:
    with pytest.raises(
        InputError, match="got 'secnd', expected one of: classifier, first, second; did you mean 'second'"
    ):
        run(project, task, plan(unfreeze_from="secnd"))


def test_a_batch_larger_than_the_training_set_is_refused(project: Project, task: Task) -> None:
    with pytest.raises(InputError, match=f"got 99, expected at most the {len(task.train)} training images"):
        run(project, task, plan(batch_size=99))


def test_a_loss_that_is_not_a_number_stops_with_epoch_step_and_rate(project: Project, task: Task) -> None:
    with pytest.raises(RefusedError, match=r"loss: got (nan|inf) in epoch \d+, step \d+, at learning rate"):
        run(project, task, plan(learning_rate=1e30, classifier_learning_rate=1e30))


def test_weights_that_diverge_in_the_last_step_are_noticed_and_not_kept(project: Project, task: Task) -> None:
    place, size = Checkpoint({"diverged": True}, Path("checkpoints")), len(task.train)
    rates = {"learning_rate": 1e30, "classifier_learning_rate": 1e30, "warm_up": 0.0}
    with pytest.raises(RefusedError, match=r"loss: got nan in epoch 1, step 1, at learning rate 7.5e\+29"):
        run(project, task, plan(epochs=2, batch_size=size, **rates), place=place)
    assert place.read() is None


@pytest.mark.parametrize("settings", [{}, {"average": 0.5}, {"optimiser": "sgd"}, {"thaw_epochs": 1, "mixup": 0.2}])
@pytest.mark.processors
def test_a_training_that_is_killed_after_any_epoch_resumes_to_the_same_result(
    project: Project, task: Task, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = plan(epochs=4, learning_rate=0.01, **settings)
    whole = run(project, task, chosen)
    place = Checkpoint({"killed": True}, Path("checkpoints"))
    for _ in range(3):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Trainer, "_step", _killed_in_the_second_epoch(Trainer._step))
            run(project, task, chosen, place=place)
    resumed = run(project, task, chosen, place=place)
    assert resumed.epochs == whole.epochs
    np.testing.assert_array_equal(resumed.test, whole.test)
    assert all(torch.equal(resumed.state[name], value) for name, value in whole.state.items())


def _killed_in_the_second_epoch(real: Callable[..., None]) -> Callable[..., None]:
    """Interrupt a training in its second epoch."""
    first: list[int] = []

    def step(trainer: object, epoch: int, batch: int) -> None:
        first.append(epoch)
        if epoch > first[0] and batch:
            raise KeyboardInterrupt
        real(trainer, epoch, batch)

    return step
