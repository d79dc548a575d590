"""The floor plan says what the code does: a stage depends on the rooms that decide its numbers."""

from typing import Any

import grimp
import pytest
from dvc_render.vega_templates import TEMPLATES
from ruamel.yaml import YAML

from pipeline.core.verbs import STAGES as NAMES
from pipeline.core.verbs import file_of
from tests.conftest import REPOSITORY

STAGES: dict[str, dict[str, Any]] = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]


ROOMS = ("data/images", "data/init", "data/sources", "data/splits", "evaluation/scoring")
"""Rooms within rooms; else a room is a folder of pipeline/."""
NOWHERE = {"core", "cluster", "repair"}
"""What decides no number of any stage: tests/test_golden.py holds that of core."""
CARRIES = {
    "thumbnails": {"data"},
    "embed": {"data", "data/sources", "data/splits"},
    "train": {"data", "embeddings", "evaluation"},
    "finetune": {"data", "data/splits", "embeddings", "evaluation"},
    "curve": {"data", "embeddings", "evaluation"},
    "survey": {"data", "data/splits", "embeddings", "heads"},
    "quality": {"data", "data/splits", "embeddings"},
    "compare": {"data", "data/images", "embeddings"},
    "lineage": {"data", "data/images", "embeddings", "evaluation", "evaluation/scoring", "quality", "verdict"},
    "complete": {"data", "evaluation", "evaluation/scoring"},
}
"""Rooms that a stage imports to read and write files with, and that decide none of its numbers."""


def code(stage: str) -> set[str]:
    return {dep.removeprefix("pipeline/") for dep in STAGES[stage]["deps"] if dep.startswith("pipeline/")}


def room_of(module: str) -> str:
    path = module.replace(".", "/").removeprefix("pipeline/")
    return next((room for room in ROOMS if path.startswith(f"{room}/")), path.partition("/")[0])


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_stage_depends_on_the_rooms_it_imports_but_for_those_that_decide_nothing(stage: str) -> None:
    graph = grimp.build_graph("pipeline", exclude_type_checking_imports=True)
    imported = graph.find_upstream_modules(f"pipeline.stages.{stage}")
    rooms = {room_of(module) for module in imported if "." in module and not graph.find_children(module)}
    whole = {room for room in rooms if room.rpartition("/")[0] in code(stage)}
    assert code(stage) == {f"stages/{stage}.py", *(rooms - whole - NOWHERE - CARRIES.get(stage, set()))}


def test_the_floor_plan_fits_on_two_screens() -> None:
    assert len((REPOSITORY / "dvc.yaml").read_text().splitlines()) <= 260


def test_every_stage_is_listed_once_in_the_order_of_the_floor_plan() -> None:
    assert list(STAGES) == list(NAMES)
    assert {path.stem for path in REPOSITORY.glob("pipeline/stages/[a-z]*.py")} == set(NAMES)


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_stage_has_the_name_of_its_file_and_of_its_sub_command(stage: str) -> None:
    assert file_of(stage) == REPOSITORY / f"pipeline/stages/{stage}.py"
    assert STAGES[stage]["cmd"].split()[:2] == ["headswap", stage]


def test_metrics_are_kept_by_git_and_other_outputs_by_dvc() -> None:
    metrics = [entry for stage in STAGES.values() for one in stage.get("metrics", []) for entry in one.values()]
    assert metrics == [{"cache": False}] * 3


def test_templates_of_plots_that_are_not_dvcs_own_lie_beside_its_settings() -> None:
    plots = [entry for stage in STAGES.values() for one in stage.get("plots", []) for entry in one.values()]
    own = {template.DEFAULT_NAME for template in TEMPLATES}
    others = {entry["template"] for entry in plots} - own
    assert others == {path.stem for path in (REPOSITORY / ".dvc/plots").glob("*.json")}
