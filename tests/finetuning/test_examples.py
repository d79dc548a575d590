from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.core import stamps
from pipeline.core.errors import InputError, StateError
from pipeline.core.sections import Plan
from pipeline.embeddings import cache
from pipeline.finetuning import examples, fitting
from pipeline.finetuning.examples import Examples, examples_of
from pipeline.finetuning.network import Trainable
from pipeline.finetuning.processes import Processes
from pipeline.finetuning.task import Task
from tests.conftest import Project
from tests.finetuning.examples import loaded, plan, task_of


def inputs(project: Project, task: Task, chosen: Plan) -> Examples:
    return examples_of(task, loaded(project), chosen, project.write().embed, Processes())


def loss_and_gradients(project: Project, task: Task, chosen: Plan) -> dict[str, torch.Tensor]:
    backbone = loaded(project)
    found = inputs(project, task, chosen)
    found.views = 4  # of the 65,536 that undecoded images have, those that are stored, too
    trainer = fitting.trainer_of(task, found, backbone.network, chosen, "accuracy", 0, Processes())
    torch.nn.init.normal_(trainer.network.classifier.weight, generator=torch.Generator().manual_seed(1))
    trainer.network.prepare(chosen.epochs)
    loss = trainer.loss(trainer.batch(task.train, 0, 0))
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: value.grad for name, value in trainer.network.named_parameters() if value.grad is not None}
    return {"loss": loss.detach(), **gradients}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float16", 2e-2)])
def test_stored_in_float32_loss_and_gradients_equal_the_uncached_ones(
    project: Project, task: Task, dtype: str, tolerance: float
) -> None:
    settings = {"augment": {"flips": "both", "crop": 0.7}, "cached_views": 4, "cached_dtype": dtype}
    live = loss_and_gradients(project, task, plan(**settings))
    cached = loss_and_gradients(project, task, plan(**settings, cache_frozen=True))
    assert live.keys() == cached.keys()
    assert len(live) == 1 + 6  # of one block's convolution and batch norm, and the classifier
    for name, value in live.items():
        torch.testing.assert_close(cached[name], value, rtol=tolerance, atol=tolerance)


def test_the_frozen_part_runs_once_per_image_and_view_and_never_again(
    project: Project, task: Task, forwards: Callable[[], int]
) -> None:
    for _ in range(2):
        found = inputs(project, task, plan(cache_frozen=True))
        found.batch(task.train, np.zeros(len(task.train), np.int64))
    assert forwards() == len(task.items) + 3 * len(task.train) == found.cost.images
    assert found.cost.seconds > 0


def test_rows_are_stored_under_a_recipe_that_names_the_layer(project: Project, task: Task) -> None:
    inputs(project, task, plan(cache_frozen=True))
    (folder,) = Path(".headswap/embeddings").glob("*/recipe.json")
    recipe = examples.recipe_of(loaded(project), plan(), project.write().embed)
    assert folder.parent.name == stamps.sha256_json(recipe)
    assert (recipe["layers"], recipe["pooling"], recipe["dtype"]) == (["first"], ["none"], "float16")


@pytest.mark.parametrize(
    ("augment", "number"),
    [({"flips": "none"}, 1), ({"flips": "both"}, 4), ({"quarter_turns": True}, 8), ({"rotate": 5}, 8)],
)
def test_the_number_of_stored_views_follows_from_flips_and_turns(augment: dict[str, object], number: int) -> None:
    assert examples.stored_views(plan(augment=augment)) == number
    assert examples.stored_views(plan(augment=augment, cached_views=3)) == 3


def test_images_that_share_their_bytes_share_their_rows(project: Project) -> None:
    (project.root / "data/raw/red/99.png").write_bytes(project.images[0].read_bytes())
    task = task_of(project)
    found = inputs(project, task, plan(cache_frozen=True))
    hashes = [item.sha256 for item in task.items]
    one, other = (row for row in range(37) if hashes.count(hashes[row]) == 2)
    first, second = found.batch(np.array([one, other]), np.zeros(2, np.int64))
    torch.testing.assert_close(first, second)


def test_a_disk_too_small_is_refused_before_anything_is_computed(
    project: Project, task: Task, forwards: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = examples.DISK_RESERVE + 1000
    monkeypatch.setattr(examples.shutil, "disk_usage", lambda _: type("", (), {"free": free}))  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"cache_frozen: 90 rows .* take 0.3 MB .* got 100.0 MB free, expected at"):
        inputs(project, task, plan(cache_frozen=True))
    assert forwards() == 0
    assert not list(Path(".headswap/embeddings").glob("*/*.h5"))


def test_disk_use_is_stated_before_it_starts(project: Project, task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    inputs(project, task, plan(cache_frozen=True))
    assert "frozen part: 90 rows to store, 0.3 MB in .headswap/embeddings" in capsys.readouterr().err


def test_caching_without_a_frozen_block_is_refused(project: Project, task: Task) -> None:
    with pytest.raises(InputError, match="no block comes before 'first'; expected unfreeze_from: second or a later"):
        inputs(project, task, plan(unfreeze_from="first", cache_frozen=True))


def test_live_batches_of_any_length_go_through_the_frozen_part(project: Project, task: Task) -> None:
    found, whole = inputs(project, task, plan()), loaded(project).network
    rows = task.train[:7]
    pixels = np.stack([examples.frozen_pass.load(task.items[row], loaded(project).framing) for row in rows])
    with torch.inference_mode():
        expected = whole.up_to("second")(torch.from_numpy(pixels))
    torch.testing.assert_close(found.batch(rows, np.zeros(7, np.int64)), expected)


def test_behind_the_last_block_only_the_classifier_is_trained(project: Project, task: Task) -> None:
    found = inputs(project, task, plan(unfreeze_from="classifier", cache_frozen=True))
    network = Trainable(loaded(project).network.split_before("classifier")[1], 16, 3, plan())
    assert network(found.batch(task.train[:2], np.zeros(2, np.int64))).shape == (2, 3)


def test_a_storage_type_that_is_too_narrow_is_named_by_the_plans_setting(
    project: Project, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = examples.runtime.lazy

    def large(*arguments: object) -> Callable[[np.ndarray], np.ndarray]:  # type: ignore[type-arg]
        forward = real(*arguments)  # type: ignore[arg-type]
        return lambda batch: forward(batch) + 1e6

    monkeypatch.setattr(examples.runtime, "lazy", large)
    with pytest.raises(InputError, match="plans: cached_dtype: got 'float16', too narrow .* expected 'float32'"):
        inputs(project, task, plan(cache_frozen=True))
    inputs(project, task, plan(cache_frozen=True, cached_dtype="float32"))


def test_no_process_stores_rows_before_all_have_looked_up_what_is_missing(
    project: Project, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(Processes, "wait", lambda _: order.append("wait"))
    monkeypatch.setattr(examples.frozen_pass, "run", lambda *_: order.append("store") or {})
    monkeypatch.setattr(cache, "SEEN_WITHIN", 0.0)
    with pytest.raises(StateError, match="rows are not in the cache"):
        inputs(project, task, plan(cache_frozen=True))
    assert order == ["wait", "store", "wait"]
