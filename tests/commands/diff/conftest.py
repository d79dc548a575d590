"""A repository with one commit."""

import pytest

from pipeline.core import locks
from tests.commands.diff.history import State, git
from tests.conftest import Project


@pytest.fixture
def state(project: Project, monkeypatch: pytest.MonkeyPatch) -> State:
    """Commit a first state, tagged `before`."""
    objects = project.root / "objects"
    monkeypatch.setattr(locks, "objects_of", lambda root: objects)
    git("init")
    made = State(objects)
    made.commit("before")
    return made
