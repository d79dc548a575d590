"""Jobs for workers, and the images of a test project as their items."""

from pathlib import Path
from typing import Any

from pipeline.core import stamps
from pipeline.networks import backbones, frozen_pass
from pipeline.networks.frozen_pass import Item
from pipeline.networks.workers import Job
from tests.conftest import Project


def job_of(project: Project, **sections: Any) -> Job:
    params = project.write(**sections)
    entry = params.backbone("tiny")
    recipe = frozen_pass.recipe_of(backbones.load("tiny", entry).identity, params.embed)
    return Job(Path.cwd(), "tiny", entry, params.embed, params.data, recipe)


def items_of(project: Project, number: int = 6) -> list[Item]:
    folder = project.root / "data/raw"
    return [
        Item(path.relative_to(project.root), stamps.sha256_file(path), name=path.relative_to(folder).as_posix())
        for path in project.images[:number]
    ]
