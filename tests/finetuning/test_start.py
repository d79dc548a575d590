from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.core.errors import StateError
from pipeline.core.sections import Plan
from pipeline.embeddings import matrix
from pipeline.finetuning import fitting, forecast, inputs, start
from pipeline.finetuning.examples import Examples, examples_of
from pipeline.finetuning.processes import Processes
from pipeline.finetuning.task import Floats, Task
from pipeline.stages import embed, finetune, prepare
from tests.conftest import Project
from tests.finetuning.examples import loaded, plan


def begun_from(project: Project, chosen: Plan) -> tuple[Task, Examples]:
    """Prepare and embed; return a task, and the inputs of a plan with a logistic start."""
    params = project.write(plans={"last": chosen.model_dump()})
    prepare.main(params)
    embed.main(params, "tiny")
    given = inputs.read(params, "tiny")
    return given.task, examples_of(given.task, given.loaded, chosen, params.embed, Processes())


def head(embedded: Floats, task: Task, C: float, **settings: Any) -> Any:
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=start.ITERATIONS, **settings))
    return fitted.fit(embedded[task.train], task.targets[task.train])


@pytest.mark.parametrize("classes", [2, 3])
def test_before_the_first_step_predictions_are_those_of_a_head_on_the_embeddings(
    project: Project, classes: int
) -> None:
    chosen = plan(start="logistic", cached_dtype="float32")
    task, source = begun_from(project, chosen)
    assert source.embedded is not None
    task = replace(task, targets=np.minimum(task.targets, classes - 1), classes=classes)
    begun = start.logistic(source.embedded, task, chosen, "accuracy")
    trainer = fitting.trainer_of(task, source, loaded(project).network, chosen, "accuracy", 0, Processes())
    expected = head(source.embedded, task, begun.C).predict_proba(source.embedded[task.test])
    np.testing.assert_allclose(trainer.predict(task.test), expected, atol=1e-4)


def test_its_penalty_is_chosen_on_validation_and_classes_weigh_as_the_plan_says(project: Project) -> None:
    chosen = plan(start="logistic", class_weight="balanced")
    task, source = begun_from(project, chosen)
    assert source.embedded is not None
    begun = start.logistic(source.embedded, task, chosen, "accuracy")
    scores = {
        C: head(source.embedded, task, C, class_weight="balanced").score(
            source.embedded[task.val], task.targets[task.val]
        )
        for C in start.VALUES
    }
    assert scores[begun.C] == max(scores.values())


def test_no_file_of_a_head_and_no_matrix_is_read(project: Project) -> None:
    begun_from(project, plan(start="logistic"))
    for path in (matrix.matrix_path("tiny"), matrix.stamp_path("tiny")):
        path.unlink()
    finetune.main(project.write(), "tiny", "last")
    assert [path.name for path in Path("models/tiny").iterdir()] == ["last"]


def test_rows_that_embed_stored_are_used_and_others_computed_once(
    project: Project, forwards: Callable[[], int]
) -> None:
    _, source = begun_from(project, plan(start="logistic", unfreeze_from="first"))
    assert forwards() == 36
    np.testing.assert_array_equal(source.embedded, matrix.read("tiny").features)
    project.write(backbones={"tiny": {**project.content["backbones"]["tiny"], "pooling": "max"}})
    for _ in range(2):
        _, other = begun_from(project, plan(start="logistic", unfreeze_from="first"))
        np.testing.assert_array_equal(other.embedded, source.embedded)
    assert forwards() == 72  # of the matrix alone


def test_the_pass_for_a_logistic_start_is_forecast_and_counted(project: Project) -> None:
    project.write(embed={"dtype": "float32"})
    chosen = plan(start="logistic", unfreeze_from="first")
    params = project.write(plans={"last": chosen.model_dump()})
    prepare.main(params)
    embed.main(params, "tiny")
    given = inputs.read(params, "tiny")
    before = forecast.forecast(given.task, given.loaded, chosen, params.embed)
    source = examples_of(given.task, given.loaded, chosen, params.embed, Processes())
    after = forecast.forecast(given.task, given.loaded, chosen, params.embed)
    assert before.storing > after.storing == 0
    assert source.cost.images == 36


@pytest.mark.parametrize("name", ["image_size", "manifest"])
def test_a_list_of_skipped_images_of_other_settings_or_another_manifest_is_refused(project: Project, name: str) -> None:
    begun_from(project, plan())
    if name == "image_size":
        params = project.write(backbones={"tiny": {**project.content["backbones"]["tiny"], "image_size": 48}})
        said = "tiny.skipped.json: image_size: got 32, expected 48 as in params.yaml; run `dvc repro`"
    else:
        params = project.write(seed=1)
        prepare.main(params)
        said = "tiny.skipped.json: made for another manifest; run `dvc repro`"
    with pytest.raises(StateError, match=said):
        inputs.read(params, "tiny")
