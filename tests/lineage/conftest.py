"""A tiny project that DVC has recorded, made once per file of tests."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from dvc.repo import Repo
from markupsafe import Markup

from pipeline.nn import backbones
from pipeline.report import charts, embedding_map
from pipeline.stamps import sha256_file
from tests.conftest import CLASSES, REPOSITORY, TINY, Project, tiny_network, write_image
from tests.stages.spine import run


def make(root: Path, **sections: Any) -> Project:
    """Make a project in the current folder, run all stages as functions, and let DVC commit what they wrote."""
    for name in CLASSES:
        for number in range(8):
            write_image(root / "data/raw" / name / f"{number:02}.png", name, number)
    torch.manual_seed(0)
    torch.save(tiny_network().state_dict(), "tiny.pth")
    project = Project(root)
    project.content["backbones"]["tiny"]["sha256"] = sha256_file(Path("tiny.pth"))
    project.content = project.write(**sections).model_dump(
        mode="json", exclude_none=True
    )  # DVC asks for every name it tracks
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


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Stand in such a project; every test leaves it as it was."""
    root, before = tmp_path_factory.mktemp("recorded"), Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "tiny", TINY)  # type: ignore[arg-type]
        patch.setattr(charts, "_drawn", lambda draw, description: Markup(""))
        patch.setattr(embedding_map, "library", lambda: "")
        os.chdir(root)
        try:
            yield make(root)
        finally:
            os.chdir(before)
