"""A copy of a project in which heads and a plan are trained."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import Project, lay_out
from tests.stages.spine import run, working_in


@pytest.fixture(scope="session")
def spine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project in which a head and a plan are trained; tests work in copies."""
    with working_in(tmp_path_factory.mktemp("spine")) as root:
        project = lay_out(root, 12)
        entries = {"logreg": {"C": 1.0, "calibrate": "temperature"}, "knn": {"n_neighbors": 3}}
        run(project, heads=entries, run={"heads": ["logreg", "knn"]})
    return root


@pytest.fixture
def project(spine: Path, project: Project) -> Project:
    """Put what was trained into the test's own folder."""
    shutil.copytree(spine, project.root, dirs_exist_ok=True)
    project.content["heads"] = {"logreg": {"C": 1.0, "calibrate": "temperature"}, "knn": {"n_neighbors": 3}}
    project.content["run"] = {**project.content["run"], "heads": ["logreg", "knn"]}
    project.write()
    return project
