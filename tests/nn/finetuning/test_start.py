from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.errors import InputError, StateError
from pipeline.nn.finetuning import fitting, inputs, start
from pipeline.nn.finetuning.examples import examples_of
from pipeline.nn.finetuning.processes import Processes
from pipeline.nn.finetuning.task import Task
from pipeline.stages import embed, finetune, prepare
from tests.conftest import Project
from tests.nn.finetuning.examples import loaded, plan


def embedded_task(project: Project) -> Task:
    params = project.write(embed={"dtype": "float32"})
    prepare.main(params)
    embed.main(params, "tiny")
    params = project.write(plans={"last": {**project.content["plans"]["last"], "start": "logistic"}})
    return inputs.read(params, "tiny", "last").task


def head(task: Task, C: float, **settings: Any) -> Any:
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=start.ITERATIONS, **settings))
    return fitted.fit(task.embedded[task.train], task.targets[task.train])  # type: ignore[index]


@pytest.mark.parametrize("classes", [2, 3])
def test_before_the_first_step_predictions_are_those_of_a_head_on_the_embeddings(
    project: Project, classes: int
) -> None:
    task = embedded_task(project)
    task = replace(task, targets=np.minimum(task.targets, classes - 1), classes=classes)
    begun = start.logistic(task, plan(), "accuracy")
    backbone, chosen = loaded(project), plan(start="logistic")
    source = examples_of(task, backbone, chosen, project.write().embed, Processes())
    trainer = fitting.trainer_of(task, source, backbone.network, chosen, "accuracy", 0, Processes())
    expected = head(task, begun.C).predict_proba(task.embedded[task.test])  # type: ignore[index]
    np.testing.assert_allclose(trainer.predict(task.test), expected, atol=1e-4)


def test_its_penalty_is_chosen_on_validation_and_classes_weigh_as_the_plan_says(project: Project) -> None:
    task = embedded_task(project)
    begun = start.logistic(task, plan(class_weight="balanced"), "accuracy")
    scores = {C: head(task, C, class_weight="balanced").score(task.embedded[task.val], task.targets[task.val])  # type: ignore[index]
              for C in start.VALUES}  # fmt: skip
    assert scores[begun.C] == max(scores.values())


def test_no_file_of_a_head_is_read(project: Project) -> None:
    embedded_task(project)
    params = project.write(plans={"last": {**project.content["plans"]["last"], "start": "logistic"}})
    finetune.main(params, "tiny", "last")
    assert [path.name for path in Path("models/tiny").iterdir()] == ["last"]


def test_embeddings_of_other_settings_are_refused(project: Project) -> None:
    embedded_task(project)
    params = project.write(backbones={"tiny": {**project.content["backbones"]["tiny"], "image_size": 48}})
    with pytest.raises(StateError, match="tiny.h5: image_size: got 32, expected 48 as in params.yaml"):
        inputs.read(params, "tiny", "last")


def test_embeddings_without_the_last_blocks_average_are_named(project: Project) -> None:
    project.write(backbones={"tiny": {**project.content["backbones"]["tiny"], "pooling": "max"}})
    with pytest.raises(
        InputError, match="got 'logistic', which needs second/average among the embeddings, got second/"
    ):
        embedded_task(project)
