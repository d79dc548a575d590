"""A tiny task."""

import pytest

from pipeline import manifest
from pipeline.nn.finetuning.task import Task
from pipeline.stages import finetune, prepare
from tests.conftest import Project
from tests.nn.finetuning.examples import loaded, plan


@pytest.fixture
def task(project: Project) -> Task:
    prepare.main(project.write())
    table = manifest.read()
    return finetune._task(table, list(range(len(table))), loaded(project), "tiny", plan())
