import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from pipeline import manifest
from pipeline.errors import InputError, StateError
from pipeline.images import Framing
from pipeline.nn import backbones, finetuning
from pipeline.nn.checkpoints import Checkpoint
from pipeline.nn.finetuning import Activations, Finetuned, Pixels, Task
from pipeline.nn.network import Backbone, average
from pipeline.params import Plan
from pipeline.stages import finetune, prepare
from tests.conftest import SIZE, Project

FRAMING = Framing(SIZE, 1.0)
RUNS = itertools.count()


@pytest.fixture
def task(project: Project) -> Task:
    prepare.main(project.write())
    table = manifest.read()
    return finetune._task(table, list(range(len(table))))


def network(project: Project) -> Backbone:
    return backbones.load("tiny", project.write().backbone("tiny")).network


def plan(**changes: object) -> Plan:
    return Plan.model_validate({"unfreeze_from": "second", "epochs": 3, "batch_size": 4, "flips": "both", **changes})


def run(task: Task, backbone: Backbone, chosen: Plan, seed: int = 0) -> Finetuned:
    nowhere = Checkpoint({"run": next(RUNS)}, Path("checkpoints"))
    return finetuning.run(task, backbone, FRAMING, chosen, "torch", "accuracy", seed, nowhere)


def test_held_activations_equal_a_fresh_pass_in_every_view(project: Project, task: Task) -> None:
    backbone = network(project)
    frozen, _ = backbone.split_before("second")
    held = Activations(task, backbone.up_to("second"), FRAMING, plan(), "torch")
    fresh = Pixels(task, backbone, FRAMING, "both")
    rows, views = np.repeat(task.train[:2], 4), np.tile(np.arange(4), 2)
    with torch.inference_mode():
        expected = frozen(fresh.batch(rows, views))
    torch.testing.assert_close(held.batch(rows, views), expected, rtol=1e-3, atol=1e-3)
    assert held.passes == len(task.items) + 3 * len(task.train)


def test_frozen_blocks_and_all_batch_norm_statistics_stay_as_they_were(project: Project, task: Task) -> None:
    before = {name: value.clone() for name, value in network(project).state_dict().items()}
    state = run(task, network(project), plan(epochs=2)).state
    changed = {name for name, value in before.items() if not torch.equal(value, state[f"backbone.{name}"])}
    assert changed
    assert all(name.startswith("blocks.second") and "running" not in name for name in changed)


def test_the_stem_plan_trains_everything(project: Project, task: Task) -> None:
    before = {name: value.clone() for name, value in network(project).state_dict().items()}
    state = run(task, network(project), plan(unfreeze_from="first", epochs=1)).state
    trained = [name for name, _ in network(project).named_parameters()]
    assert all(not torch.equal(before[name], state[f"backbone.{name}"]) for name in trained)


def test_a_seed_repeats_and_another_does_not(project: Project, task: Task) -> None:
    one, two, other = (run(task, network(project), plan(), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.test, two.test)
    assert (one.test != other.test).any()


def test_it_learns(project: Project, task: Task) -> None:
    done = run(task, network(project), plan(epochs=12, learning_rate=0.01, classifier_learning_rate=0.05, patience=12))
    assert (done.test.argmax(axis=1) == task.targets[task.test]).mean() > 0.8


def test_the_best_validation_epoch_is_the_one_that_predicts(project: Project, task: Task) -> None:
    done = run(task, network(project), plan(epochs=8, learning_rate=0.05, patience=8))
    accuracy = (done.val.argmax(axis=1) == task.targets[task.val]).mean()
    assert accuracy == pytest.approx(max(epoch.validation for epoch in done.epochs))


def test_it_stops_when_validation_no_longer_improves(project: Project, task: Task) -> None:
    done = run(task, network(project), plan(epochs=50, patience=2, learning_rate=1e-9, classifier_learning_rate=1e-9))
    scores = [epoch.validation for epoch in done.epochs]
    assert len(scores) == scores.index(max(scores)) + 1 + 2 < 50


def test_test_rows_never_influence_training(project: Project, task: Task) -> None:
    scrambled = task.targets.copy()
    scrambled[task.test] = 0
    other = Task(task.items, scrambled, task.classes, task.train, task.val, task.test)
    np.testing.assert_array_equal(run(task, network(project), plan()).test, run(other, network(project), plan()).test)


def test_the_classifier_plan_leaves_every_block_as_it_was(project: Project, task: Task) -> None:
    before = network(project).state_dict()
    done = run(task, network(project), plan(unfreeze_from="classifier", epochs=2))
    assert all(torch.equal(value, done.state[f"backbone.{name}"]) for name, value in before.items())
    assert done.state["classifier.weight"].any()


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
        {"layer_decay": 0.5},
        {"thaw_epochs": 4},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_setting_learns_repeats_and_makes_a_difference(
    project: Project, task: Task, changes: dict[str, object]
) -> None:
    settings = {"unfreeze_from": "first", "epochs": 12, "patience": 12, "learning_rate": 0.01,
                "classifier_learning_rate": 0.05}  # fmt: skip
    fewer = replace(task, train=task.train[2:])  # two of the first class, so that the classes differ in size
    plain, one, two = (run(fewer, network(project), plan(**{**settings, **some})) for some in ({}, changes, changes))
    assert (one.test.argmax(axis=1) == task.targets[task.test]).mean() > 0.8
    np.testing.assert_array_equal(one.test, two.test)
    assert (one.test != plain.test).any()


def test_accumulated_batches_step_as_one_large_batch(project: Project, task: Task) -> None:
    settings = {"unfreeze_from": "first", "epochs": 1, "flips": "none", "dropout": 0, "optimiser": "sgd"}
    whole = run(task, network(project), plan(batch_size=len(task.train), **settings))
    parts = run(task, network(project), plan(batch_size=len(task.train) // 2, accumulate=2, **settings))
    assert len(task.train) % 2 == 0
    np.testing.assert_allclose(parts.test, whole.test, atol=1e-5)


def test_blocks_thaw_from_the_last(project: Project) -> None:
    trained = finetuning.Trainable(network(project).blocks, 16, 3, plan(unfreeze_from="first", thaw_epochs=2))
    seen = []
    for epoch in range(6):
        trained.prepare(epoch)
        seen.append([all(value.requires_grad for value in block.parameters()) for block in trained.blocks])
    assert seen == [[False, False]] * 2 + [[False, True]] * 2 + [[True, True]] * 2
    assert all(value.requires_grad for value in trained.classifier.parameters())


def test_trained_batch_norm_moves_its_statistics(project: Project, task: Task) -> None:
    before = network(project).state_dict()
    after = run(task, network(project), plan(batch_norm="trained")).state
    moved = {name for name in before if "running" in name and not torch.equal(before[name], after[f"backbone.{name}"])}
    assert moved == {name for name in before if "running" in name and name.startswith("blocks.second")}


def test_balanced_classes_weigh_alike(project: Project, task: Task) -> None:
    targets = np.array([0] * 6 + [1] * 3 + [2] * 3)
    some = Task(task.items[:12], targets, 3, np.arange(12), np.arange(0), np.arange(0))
    weight = finetuning._class_weight(plan(class_weight="balanced"), some)
    assert weight is not None
    assert weight.tolist() == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=targets))


def test_a_block_that_does_not_exist_is_answered_with_the_valid_ones(project: Project, task: Task) -> None:
    with pytest.raises(
        InputError, match="got 'secnd', expected one of: classifier, first, second; did you mean 'second'"
    ):
        run(task, network(project), plan(unfreeze_from="secnd"))


def test_a_batch_larger_than_the_training_set_is_refused(project: Project, task: Task) -> None:
    with pytest.raises(InputError, match=f"got 99, expected at most the {len(task.train)} training images"):
        run(task, network(project), plan(batch_size=99))


def test_a_loss_that_is_no_number_stops_with_epoch_step_and_rate(project: Project, task: Task) -> None:
    with pytest.raises(StateError, match=r"loss: got (nan|inf) in epoch \d+, step \d+, at learning rate"):
        run(task, network(project), plan(learning_rate=1e30, classifier_learning_rate=1e30))


def test_a_saved_network_holds_what_predicted(project: Project, task: Task, tmp_path: Path) -> None:
    import safetensors.torch

    backbone = network(project)
    done = run(task, backbone, plan())
    finetuning.save(tmp_path / "model.safetensors", done.state)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    fresh = network(project)
    fresh.load_state_dict({n.removeprefix("backbone."): v for n, v in state.items() if n.startswith("backbone.")})
    pixels = Pixels(task, fresh, FRAMING, "none").batch(task.test, np.zeros(len(task.test), np.int64))
    with torch.inference_mode():
        logits = torch.nn.functional.linear(
            average(fresh.blocks(pixels)), state["classifier.weight"], state["classifier.bias"]
        )
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), done.test, atol=2e-3)  # held in float16


@pytest.mark.parametrize("settings", [{}, {"average": 0.5}, {"optimiser": "sgd"}, {"thaw_epochs": 1, "mixup": 0.2}])
def test_killed_after_any_epoch_and_run_again_it_ends_as_if_nothing_had_happened(
    project: Project, task: Task, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = plan(epochs=4, learning_rate=0.01, **settings)
    whole = run(task, network(project), chosen)
    place = Checkpoint({"killed": True}, Path("checkpoints"))
    for _ in range(3):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(finetuning._Trainer, "_step", _killed_in_the_second_epoch(finetuning._Trainer._step))
            finetuning.run(task, network(project), FRAMING, chosen, "torch", "accuracy", 0, place)
    resumed = finetuning.run(task, network(project), FRAMING, chosen, "torch", "accuracy", 0, place)
    assert resumed.epochs == whole.epochs
    np.testing.assert_array_equal(resumed.test, whole.test)
    assert all(torch.equal(resumed.state[name], value) for name, value in whole.state.items())


def _killed_in_the_second_epoch(real: Callable[..., None]) -> Callable[..., None]:
    """Let a process see one epoch through, and not the next."""
    first: list[int] = []

    def step(trainer: object, epoch: int, batch: int) -> None:
        first.append(epoch)
        if epoch > first[0] and batch:
            raise KeyboardInterrupt
        real(trainer, epoch, batch)

    return step
