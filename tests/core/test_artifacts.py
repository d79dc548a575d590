"""The list of what stages leave, held to dvc.yaml and .gitignore, which must say the same in their own words."""

import re
import subprocess
from pathlib import PurePosixPath
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.core import artifacts
from tests.conftest import REPOSITORY

STAGES: dict[str, dict[str, Any]] = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]


def outs(stage: dict[str, Any]) -> dict[str, bool]:
    """Return path -> whether git keeps it."""
    entries = [
        next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
        for kind in ("outs", "metrics", "plots")
        for entry in stage.get(kind, [])
    ]
    return {
        re.sub(r"\$\{item\.(?:head|plan)\}", "{run}", path).replace("${item.backbone}", "{backbone}"): (
            not settings.get("cache", True)
        )
        for path, settings in entries
    }


def listed(stage: str) -> dict[str, bool]:
    """Return the same of the list; a model's stamp lies in its folder."""
    of_stage = [one for one in artifacts.ALL if stage in one.stages]
    made = {one.path: one.in_git for one in of_stage}
    stamped = {one.stamp for one in of_stage if one.stamp and str(PurePosixPath(one.stamp).parent) not in made}
    return dict.fromkeys(stamped, False) | made


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_stage_of_dvc_yaml_leaves_what_is_listed(stage: str) -> None:
    in_dvc_yaml, in_the_list = outs(STAGES[stage]), listed(stage)
    assert in_dvc_yaml == in_the_list, (
        f"{stage}: outs of dvc.yaml and core/artifacts.py differ in {in_dvc_yaml.items() ^ in_the_list.items()}"
    )


def test_every_file_is_listed_once_with_stages_of_dvc_yaml() -> None:
    paths = [one.path for one in artifacts.ALL]
    assert len(set(paths)) == len(paths)
    assert {stage for one in artifacts.ALL for stage in one.stages} <= set(STAGES)


def test_what_is_recorded_last_depends_on_all_that_is_listed() -> None:
    (stage,) = artifacts.LINEAGE.stages
    read = set(STAGES[stage]["deps"])
    for path in {path for one in artifacts.ALL for path in (one.path, one.stamp)} - {artifacts.LINEAGE.path, ""}:
        assert read & {path, *map(str, PurePosixPath(path).parents)}, path


def test_git_ignores_all_but_what_it_keeps() -> None:
    kept = {one.at("a", "b").as_posix(): one.in_git for one in artifacts.ALL}
    kept |= {one.stamp_at("a", "b").as_posix(): False for one in artifacts.ALL if one.stamp}
    asked = subprocess.run(
        ["git", "check-ignore", "--no-index", *kept], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert set(asked.stdout.split()) == {path for path, in_git in kept.items() if not in_git}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("data/embeddings/a.h5", ("a",)),
        ("data/embeddings/a.skipped.json", ("a",)),
        ("models/a/b", ("a", "b")),
        ("models/a/b/model.skops", ("a", "b")),
        ("predictions/a/b.parquet", ("a", "b")),
        ("plots/a/b/more/x.csv", ("a", "b")),
        ("models/a", ()),
        ("data/manifest.parquet", ()),
        ("elsewhere/models/a/b", ()),
    ],
)
def test_a_path_tells_whose_file_lies_there(path: str, names: tuple[str, ...]) -> None:
    assert artifacts.named(path) == names


def test_a_path_is_an_artifacts_only_where_that_lies() -> None:
    assert artifacts.SKIPPED.is_at("data/embeddings/a.skipped.json")
    assert not artifacts.EMBEDDINGS.is_at("data/embeddings/a.skipped.json")
    assert artifacts.MANIFEST.is_at("data/manifest.parquet")
    assert not artifacts.MODEL.is_at("models/a/b/run.json")
