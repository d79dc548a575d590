"""A repository of git and DVC."""

import os
import sys
from pathlib import Path

import pytest

from tests.commands.doctor.repository import RWLOCK, git
from tests.conftest import Project


@pytest.fixture(autouse=True)
def repository(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    git("init", "--quiet")
    RWLOCK.parent.mkdir(parents=True)
    return project
