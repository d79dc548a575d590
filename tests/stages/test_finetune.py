import numpy as np
import pytest
from torch import nn

from pipeline.core.errors import StateError
from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.evaluation import runs
from pipeline.finetuning import prediction
from pipeline.finetuning.saving import FinetunedNetwork
from pipeline.networks import frozen_pass, runtime
from pipeline.stages import embed, finetune, prepare
from tests.conftest import Project


def finetuned(project: Project, **changes: object) -> tuple[Params, runs.FinishedRun]:
    plan = {**project.content["plans"]["last"], **changes}
    params = project.write(plans={"last": plan})
    prepare.main(params)
    embed.main(params, "tiny")
    finetune.main(params, "tiny", "last")
    return params, runs.read("tiny", "last")


def test_a_plan_says_what_it_costs_to_keep_and_to_use(project: Project) -> None:
    _, run = finetuned(project)
    facts = run.stamp.facts
    assert facts["device"] == runtime.device().type
    names = ("model.safetensors", "model.json")
    assert facts["bytes_on_disk"] == sum((runs.folder("tiny", "last") / name).stat().st_size for name in names)
    assert "stored_bytes" not in facts
    judged = sum(split != "train" for split in manifest.read().split)
    used = facts["prediction"]
    assert (used["runtime"], used["images"]) == ("torch", judged // 4 * 4)  # in whole batches
    assert 0 < used["seconds_per_1000"] < 1000
    assert run.cost.peak_memory > 1_000_000


def test_a_plan_that_stores_the_frozen_part_says_how_large_it_is(project: Project) -> None:
    _, run = finetuned(project, cache_frozen=True, cached_dtype="float32", cached_views=3)
    rows = 36 + 2 * list(manifest.read().split).count("train")
    assert run.stamp.facts["stored_bytes"] == rows * 8 * 15 * 15 * 4  # (8, 15, 15) float32


def test_of_auto_the_runtime_that_it_chose_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "AUTO", ("torch",))
    project.write(embed={"runtime": "auto"})
    _, run = finetuned(project)
    assert run.stamp.facts["prediction"]["runtime"] == "torch"


def test_at_most_so_many_images_are_timed_and_none_twice(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[frozen_pass.Item] = []
    real = frozen_pass.seconds
    monkeypatch.setattr(prediction, "MOST_TIMED", 3)
    monkeypatch.setattr(frozen_pass, "seconds", lambda items, *rest: asked.extend(items) or real(items, *rest))
    _, run = finetuned(project)
    assert run.stamp.facts["prediction"]["images"] == len({item.sha256 for item in asked}) == 3


def test_the_network_that_is_timed_gives_the_predictions(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    real = runtime.prepare

    def keeping(network: nn.Module, name: str, example: runtime.Batch) -> runtime.Forward:
        forward = real(network, name, example)
        return lambda batch: seen.append(forward(batch)) or seen[-1]

    monkeypatch.setattr(runtime, "prepare", keeping)
    _, run = finetuned(project)
    np.testing.assert_allclose(
        seen[-1], run.predictions.probability[: len(run.predictions.label) // 4 * 4][-4:], atol=1e-5
    )


def test_a_plan_whose_runtime_computes_something_else_is_kept_and_not_timed(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params, run = finetuned(project)
    real = runtime.prepare

    def refusing(network: nn.Module, name: str, example: runtime.Batch) -> runtime.Forward:
        if isinstance(network, FinetunedNetwork):
            raise StateError("runtime torch: differs")
        return real(network, name, example)

    monkeypatch.setattr(runtime, "prepare", refusing)
    finetune.main(params, "tiny", "last")
    again = runs.read("tiny", "last")
    assert "prediction" not in again.stamp.facts
    assert "prediction: not timed: runtime torch: differs" in capsys.readouterr().err
    np.testing.assert_array_equal(again.predictions.probability, run.predictions.probability)
