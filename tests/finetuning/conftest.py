"""A tiny task."""

import pytest

from pipeline.finetuning.task import Task
from tests.conftest import Project
from tests.finetuning.examples import task_of


@pytest.fixture
def task(project: Project) -> Task:
    return task_of(project)
