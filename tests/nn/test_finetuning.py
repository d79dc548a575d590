from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import manifest
from pipeline.errors import InputError, StateError
from pipeline.images import Framing
from pipeline.nn import backbones, finetuning
from pipeline.nn.finetuning import Activations, Finetuned, Pixels, Task
from pipeline.nn.network import Backbone, average
from pipeline.params import Plan
from pipeline.stages import finetune, prepare
from tests.conftest import SIZE, Project

FRAMING = Framing(SIZE, 1.0)


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
    return finetuning.run(task, backbone, FRAMING, chosen, "torch", "accuracy", seed)


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
    assert len(done.epochs) == 3


def test_test_rows_never_influence_training(project: Project, task: Task) -> None:
    scrambled = task.targets.copy()
    scrambled[task.test] = 0
    other = Task(task.items, scrambled, task.classes, task.train, task.val, task.test)
    np.testing.assert_array_equal(run(task, network(project), plan()).test, run(other, network(project), plan()).test)


@pytest.mark.parametrize("total", range(1, 12))
def test_the_learning_rate_warms_up_and_falls_whatever_the_number_of_steps(total: int) -> None:
    rates = [finetuning._rate(step, total) for step in range(total)]
    peak = rates.index(max(rates))
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_a_block_that_does_not_exist_is_answered_with_the_valid_ones(project: Project, task: Task) -> None:
    with pytest.raises(InputError, match="got 'secnd', expected one of: first, second; did you mean 'second'"):
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
