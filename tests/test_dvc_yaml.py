"""The floor plan says what the code does: a stage depends on every module it imports."""

from typing import Any

import grimp
import pytest
from dvc_render.vega_templates import TEMPLATES
from ruamel.yaml import YAML

from pipeline.verbs import VERBS
from tests.conftest import REPOSITORY

STAGES: dict[str, dict[str, Any]] = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]


def import_closure(stage: str) -> set[str]:
    graph = grimp.build_graph("pipeline", exclude_type_checking_imports=True)
    modules = {f"pipeline.stages.{stage}", *graph.find_upstream_modules(f"pipeline.stages.{stage}")}
    above = {module.rsplit(".", level)[0] for module in modules for level in range(1, module.count(".") + 1)}
    files = {module.replace(".", "/") + ".py" for module in modules - above}
    files |= {module.replace(".", "/") + "/__init__.py" for module in above}  # a package runs before its modules
    # imported whole, or with templates beside the code
    folders = ("heads", "lineage/auditing", "nn/finetuning", "quality", "report", "sources")
    return {
        next((f"pipeline/{folder}" for folder in folders if file.startswith(f"pipeline/{folder}/")), file)
        for file in files
    }


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_stage_depends_on_its_import_closure_and_nothing_else_in_pipeline(stage: str) -> None:
    stated = {dep for dep in STAGES[stage]["deps"] if dep.startswith("pipeline/")}
    assert stated == import_closure(stage)


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_stage_has_the_name_of_its_file_and_of_its_sub_command(stage: str) -> None:
    assert VERBS[stage].module == f"stages.{stage}"
    assert STAGES[stage]["cmd"].split()[:2] == ["headswap", stage]


def test_metrics_are_kept_by_git_and_other_outputs_by_dvc() -> None:
    metrics = [entry for stage in STAGES.values() for one in stage.get("metrics", []) for entry in one.values()]
    assert metrics == [{"cache": False}] * 3


def test_templates_of_plots_that_are_not_dvcs_own_lie_beside_its_settings() -> None:
    plots = [entry for stage in STAGES.values() for one in stage.get("plots", []) for entry in one.values()]
    own = {template.DEFAULT_NAME for template in TEMPLATES}
    others = {entry["template"] for entry in plots} - own
    assert others == {path.stem for path in (REPOSITORY / ".dvc/plots").glob("*.json")}
