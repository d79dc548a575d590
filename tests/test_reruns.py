"""Which stages a setting makes `dvc repro` run again, as DVC itself says: all that depend on it, and no others."""

import copy
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from pipeline.embeddings import skipped
from pipeline.stages import embed, prepare
from tests.conftest import REPOSITORY, Project
from tests.soak import soak

BACKBONE = "efficientnet_lite0"
LISTED = skipped.path_of(BACKBONE)
RESEEN = ("image_size", "crop", "scaled_jpeg")
"""What changes how an image comes to the first block, and so the list of skipped images."""
ENDS = {"compare", "lineage", "complete"}
HEADS = {f"train@{BACKBONE}-{head}" for head in ("logreg", "knn")}
PLANS = {f"finetune@{BACKBONE}-{plan}" for plan in ("last_blocks", "begun")}
ON_ROWS = {"quality", *(f"{stage}@{BACKBONE}" for stage in ("embed", "survey", "curve")), *HEADS, *ENDS}
"""What an other matrix reaches."""
EVERYTHING = ON_ROWS | PLANS

TABLE: list[tuple[str, Any, set[str]]] = [
    ("embed.copies", 2, ON_ROWS),
    ("embed.dtype", "float32", ON_ROWS),
    ("embed.batch_size", 8, ON_ROWS),
    ("embed.augment.rotate", 5, ON_ROWS),
    ("embed.engine", {"backend": "dask", "address": "tcp://host:1"}, ON_ROWS),
    (f"backbones.{BACKBONE}.pooling", "max", ON_ROWS),
    (f"backbones.{BACKBONE}.layers", ["block5", "top"], ON_ROWS),
    (f"backbones.{BACKBONE}.image_size", 64, EVERYTHING),
    (f"backbones.{BACKBONE}.crop", 0.9, EVERYTHING),
    ("embed.runtime", "torch", EVERYTHING),
    ("embed.scaled_jpeg", True, EVERYTHING),
    ("plans.last_blocks.epochs", 3, {f"finetune@{BACKBONE}-last_blocks", f"curve@{BACKBONE}", *ENDS}),
    ("plans.begun.start", "zeros", {f"finetune@{BACKBONE}-begun", f"curve@{BACKBONE}", *ENDS}),
    ("heads.knn.n_neighbors", 3, {f"train@{BACKBONE}-knn", *ENDS}),
    ("curve.seeds", 4, {f"curve@{BACKBONE}", *ENDS}),
    ("compare.margin", 0.02, ENDS),
    ("selection.folds", 3, {*HEADS, f"curve@{BACKBONE}", *ENDS}),
    ("data.near_duplicate", 0.9, {"prepare", "thumbnails", *EVERYTHING}),
    ("seed", 1, {"prepare", "thumbnails", *EVERYTHING}),
]

BY_NAME = {name: (value, expected) for name, value, expected in TABLE}
LIKE_ANOTHER = {
    "embed.dtype", "embed.batch_size", "embed.augment.rotate", f"backbones.{BACKBONE}.layers",
    f"backbones.{BACKBONE}.crop", "plans.begun.start", "cluster", "commands", "repair", "data/init",
}  # fmt: skip
"""What stands in the same lines of the floor plan as another setting or room: the soak edits it, too."""


def some_of(every: Iterable[str], later: set[str]) -> list[Any]:
    """Leave some names to the soak."""
    return [*(one for one in every if one not in later), *soak(one for one in every if one in later)]


def set_in(content: dict[str, Any], name: str, value: Any) -> None:
    *above, last = name.split(".")
    for key in above:
        content = content.setdefault(key, {})
    content[last] = value


class Pipeline:
    """The floor plan in a folder of its own, with the code, everything up to date."""

    def __init__(self) -> None:
        yaml = YAML(typ="safe")
        for name in ("dvc.yaml", ".dvcignore"):
            shutil.copy(REPOSITORY / name, ".")
        shutil.copytree(REPOSITORY / "pipeline", "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
        self.content = yaml.load(REPOSITORY / "params.yaml")
        self.content["run"] |= {"heads": ["logreg", "knn"], "plans": ["last_blocks", "begun"]}
        self.content["plans"]["begun"] = {"unfreeze_from": "block5", "start": "logistic"}
        self.write()
        for path in (Path("data/raw/elpv/labels.csv"), Path("data/excluded.csv")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        with Repo.init(no_scm=True) as repository:
            for out in (out for stage in repository.index.stages for out in stage.outs):
                path = Path(out.fs_path)
                path = path if path.suffix else path / "file"  # a model's folder
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(path.as_posix())
            repository.commit(force=True)
            self.stages = list(repository.index.stages)

    def write(self, **changes: Any) -> None:
        content = copy.deepcopy(self.content)
        for name, value in changes.items():
            set_in(content, name, value)
        with Path("params.yaml").open("w") as stream:
            YAML(typ="safe").dump(content, stream)

    def reruns(self, name: str, value: Any) -> set[str]:
        """Return the stages that `dvc repro --dry` would run after an edit, and those that then read other bytes."""
        self.write(**{name: value})
        found = self.would_run()
        same = set() if name.endswith(RESEEN) or "prepare" in found else {LISTED.absolute()}
        while True:
            outs = {
                Path(out.fs_path) for stage in self.stages if stage.addressing in found for out in stage.outs
            } - same
            more = {stage.addressing for stage in self.stages if reads(stage.deps, outs)} - found
            if not more:
                return found
            found |= more

    def would_run(self) -> set[str]:
        """Return the stages that `dvc repro --dry` would run."""
        with Repo() as repository:
            return {stage.addressing for stage in repository.reproduce(dry=True)}


def reads(deps: Iterable[Any], outs: set[Path]) -> bool:
    paths = [Path(dep.fs_path) for dep in deps]
    return any(out.is_relative_to(path) for path in paths for out in outs)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("reruns"))
        yield Pipeline()


@pytest.mark.filterwarnings("ignore:_NoneStep.value will soon:DeprecationWarning")  # DVC's own
@pytest.mark.parametrize("name", some_of(BY_NAME, LIKE_ANOTHER))
def test_a_setting_reruns_what_depends_on_it_and_nothing_else(pipeline: Pipeline, name: str) -> None:
    value, expected = BY_NAME[name]
    assert pipeline.reruns(name, value) == expected


TRAINED = HEADS | {f"curve@{BACKBONE}"}
ROOMS: dict[str, set[str]] = {
    "core": set(),
    "cluster": set(),
    "commands": set(),
    "repair": set(),
    "serving": set(),
    "data": {"prepare"},
    "data/init": {"prepare"},
    "data/sources": {"prepare"},
    "data/images": {"prepare", "thumbnails", f"embed@{BACKBONE}", f"curve@{BACKBONE}", "quality", *PLANS},
    "data/splits": {"prepare", *TRAINED},
    "embeddings": {f"embed@{BACKBONE}"},
    "networks": {f"embed@{BACKBONE}", *TRAINED, *PLANS},
    "heads": {"quality", *TRAINED},
    "finetuning": {f"curve@{BACKBONE}", *PLANS},
    "evaluation": {f"survey@{BACKBONE}", "quality", "compare"},
    "evaluation/scoring": {f"survey@{BACKBONE}", "quality", "compare", *TRAINED, *PLANS},
    "quality": {"quality", "compare"},
    "verdict": {"compare"},
    "report": {"compare"},
    "lineage": {"lineage"},
    "stages/embed.py": {f"embed@{BACKBONE}"},
}
"""An edit here runs these stages; and those that read what they write, if that comes out different."""


@pytest.mark.filterwarnings("ignore:_NoneStep.value will soon:DeprecationWarning")  # DVC's own
@pytest.mark.parametrize("room", some_of(ROOMS, LIKE_ANOTHER))
def test_an_edit_of_a_room_reruns_the_stages_that_it_decides(pipeline: Pipeline, room: str) -> None:
    pipeline.write()
    path = Path("pipeline", room, "" if room.endswith(".py") else "__init__.py")
    before = path.read_text()
    path.write_text(f"{before}# edited\n")
    found = pipeline.would_run()
    path.write_text(before)
    assert found == ROOMS[room]


def test_the_table_of_edits_has_every_room() -> None:
    folders = {path.parent.relative_to(REPOSITORY / "pipeline") for path in REPOSITORY.glob("pipeline/*/__init__.py")}
    assert {folder.as_posix() for folder in folders} <= {*ROOMS, "stages"}


SEEN = {"backbones.tiny.crop": 0.9, "backbones.tiny.image_size": 64, "embed.scaled_jpeg": True}
NOT_SEEN = {
    "embed.copies": 1,
    "embed.dtype": "float32",
    "embed.batch_size": 8,
    "embed.augment": {"rotate": 5},
    "backbones.tiny.pooling": "max",
    "backbones.tiny.layers": ["first", "second"],
}


def test_the_list_of_skipped_images_changes_only_with_how_images_are_seen(project: Project) -> None:
    before = listed(project)
    for name, value in NOT_SEEN.items():
        set_in(project.content, name, value)
        assert listed(project) == before, name
    for name, value in SEEN.items():
        set_in(project.content, name, value)
        assert listed(project) != before, name
        before = listed(project)


def listed(project: Project) -> bytes:
    params = project.write()
    prepare.main(params)
    embed.main(params, "tiny")
    return skipped.path_of("tiny").read_bytes()
