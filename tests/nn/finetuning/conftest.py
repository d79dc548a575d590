"""A tiny task."""

import pytest

from pipeline.nn.finetuning.task import Task
from tests.conftest import Project
from tests.nn.finetuning.examples import task_of


@pytest.fixture
def task(project: Project) -> Task:
    return task_of(project)
