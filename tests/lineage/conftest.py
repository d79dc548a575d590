"""A tiny project that DVC has recorded, made once and copied for each file of tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from tests.conftest import REPOSITORY, Project, lay_out
from tests.stages.spine import run, working_in


def make(root: Path, **sections: Any) -> Project:
    """Make a project in the current folder, run all stages as functions, and let DVC commit what they wrote."""
    project = lay_out(root, 8)
    # DVC asks for every name that it tracks
    project.content = project.write(**sections).model_dump(mode="json", exclude_none=True)
    shutil.copytree(REPOSITORY / "pipeline", "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    Path("data").mkdir(exist_ok=True)
    Path("data/excluded.csv").write_text("sha256,reason\n")
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(REPOSITORY / name, name)
    run(project)
    with Repo.init(no_scm=True) as repository:
        shutil.copytree(REPOSITORY / ".dvc/plots", ".dvc/plots", dirs_exist_ok=True)
        repository.commit(force=True)
    return project


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Make such a project, which nobody may change."""
    with working_in(tmp_path_factory.mktemp("made")) as root:
        return make(root)


@pytest.fixture(scope="module")
def recorded(made: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Stand in a copy of it; every test leaves it as it was."""
    root = tmp_path_factory.mktemp("recorded")
    shutil.copytree(made.root, root, dirs_exist_ok=True)
    with working_in(root):
        copy = Project(root)
        copy.content = made.content
        yield copy
