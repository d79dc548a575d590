"""A copy of a project that has run."""

import shutil
from pathlib import Path

import pytest

from pipeline.core import locks, params
from pipeline.evaluation import runs
from pipeline.networks import backbones
from tests.commands.forget.repository import OBJECTS, commit, git
from tests.conftest import TINY, Project, lay_out
from tests.stages.spine import run, working_in


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project of 24 images that has run, once; nobody may change it."""
    with working_in(tmp_path_factory.mktemp("made")) as root:
        run(lay_out(root, 8), embed={"copies": 1})
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Stand in a copy of it, under git and with DVC's objects in a folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locks, "objects_of", lambda root: OBJECTS)
    monkeypatch.setitem(backbones.BACKBONES, "tiny", TINY)  # type: ignore[arg-type]
    (runs.CHECKPOINTS / "x").mkdir(parents=True)
    (runs.CHECKPOINTS / "x/y.safetensors").write_bytes(b"")
    git("init", "--quiet")
    commit()
    found = Project(tmp_path)
    found.content = params.YAML(typ="safe").load(Path("params.yaml").read_text())
    return found
