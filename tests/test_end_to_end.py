"""A real `dvc repro` on a subset of the real images, in a temporary clone."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import REPOSITORY

BACKBONE = "efficientnet_lite0"
PER_STRATUM = 24


class Clone:
    """A copy of the repository under git, with a few images and small settings."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        self._copy_repository()
        self.set(
            **{
                "embed.runtime": "torch",
                "selection.folds": 2,
                "compare.bootstrap": 200,
                "run.heads": ["logreg", "knn"],
                "heads.logreg.C": [0.01, 0.1],
                "heads.knn": {"n_neighbors": 5},
                f"backbones.{BACKBONE}.image_size": 64,
                "plans.last_blocks.epochs": 1,
                "plans.last_blocks.batch_size": 16,
            }
        )

    def _copy_repository(self) -> None:
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.check_output(listed, cwd=REPOSITORY, text=True).splitlines():
            if (REPOSITORY / name).exists() and name != "dvc.lock":
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / name, self.root / name)
        self.run("git", "init", "--quiet")
        self.run("git", "add", ".")
        self.run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "clone")

    def run(self, *command: str, status: int = 0) -> str:
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, text=True, stdout=-1, stderr=-2, stdin=-3, check=False
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    def repro(self) -> list[str]:
        """Run `dvc repro`; return the stages that ran."""
        self.output = self.run("dvc", "repro")
        return re.findall(r"Running stage '(.+)'", self.output)

    def set(self, **values: Any) -> None:
        """Set dotted keys of params.yaml."""
        yaml = YAML()
        content = yaml.load(self.root / "params.yaml")
        for place, value in values.items():
            *path, last = place.split(".")
            section = content
            for key in path:
                section = section[key]
            section[last] = value
        yaml.dump(content, self.root / "params.yaml")

    def lay_out(self, per_stratum: int, start: int = 0) -> None:
        """Put the first images of every label and cell type into the data folder, as the demo's package has them."""
        spec = find_spec("elpv_dataset")
        assert spec is not None
        assert spec.origin is not None
        source, target = Path(spec.origin).parent / "data", self.root / "data/raw/elpv"
        strata: dict[tuple[bool, str], list[str]] = {}
        for line in (source / "labels.csv").read_text().splitlines():
            _, probability, kind = line.split()
            strata.setdefault((float(probability) > 0.5, kind), []).append(line)
        chosen = [line for lines in strata.values() for line in lines[start : start + per_stratum]]
        (target / "images").mkdir(parents=True, exist_ok=True)
        for line in chosen:
            shutil.copy(source / line.split()[0], target / line.split()[0])
        with (target / "labels.csv").open("a") as table:
            table.writelines(f"{line}\n" for line in chosen)

    def cached_shards(self) -> list[str]:
        """The names, that is the hashes, of all that was ever pushed through the CNN."""
        return sorted(path.name for path in (self.root / ".headswap").rglob("*.h5"))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    made = Clone(tmp_path_factory.mktemp("clone"))
    made.lay_out(PER_STRATUM)
    made.first = made.repro()  # type: ignore[attr-defined]
    return made


@pytest.fixture(autouse=True)
def _settled(clone: Clone) -> Iterator[None]:
    """Give every test a clone in which nothing is left to do, and take its edits of params.yaml back."""
    before = (clone.root / "params.yaml").read_text()
    yield
    (clone.root / "params.yaml").write_text(before)
    clone.repro()


def test_the_first_run_runs_every_stage(clone: Clone) -> None:
    trained = [f"train@{BACKBONE}-logreg", f"train@{BACKBONE}-knn", f"finetune@{BACKBONE}-last_blocks"]
    assert clone.first == ["prepare", f"embed@{BACKBONE}", *trained, "compare", "audit"]  # type: ignore[attr-defined]
    assert (clone.root / "reports/index.html").stat().st_size < 6_000_000


def test_with_nothing_changed_nothing_runs(clone: Clone) -> None:
    assert clone.repro() == []
    assert "Data and pipelines are up to date." in clone.output


def test_an_edited_head_reruns_itself_and_no_image_goes_through_the_cnn(clone: Clone) -> None:
    shards = clone.cached_shards()
    clone.set(**{"heads.logreg.C": [0.02, 0.2]})
    assert clone.repro() == [f"train@{BACKBONE}-logreg", "compare", "audit"]
    assert clone.cached_shards() == shards


def test_a_value_that_was_used_before_comes_back_without_running(clone: Clone) -> None:
    old = (clone.root / f"metrics/{BACKBONE}/knn.json").read_bytes()
    clone.set(**{"heads.knn": {"n_neighbors": 1}})
    assert f"train@{BACKBONE}-knn" in clone.repro()
    assert (clone.root / f"metrics/{BACKBONE}/knn.json").read_bytes() != old
    clone.set(**{"heads.knn": {"n_neighbors": 5}})
    assert clone.repro() == []
    assert "is cached - skipping run" in clone.output
    assert (clone.root / f"metrics/{BACKBONE}/knn.json").read_bytes() == old


def test_a_head_that_leaves_the_list_leaves_the_verdict(clone: Clone) -> None:
    clone.set(**{"run.heads": ["logreg"]})
    assert clone.repro() == ["compare", "audit"]
    assert "knn" not in (clone.root / "reports/verdict.json").read_text()


def test_a_head_that_joins_the_list_runs_alone(clone: Clone) -> None:
    clone.set(**{"run.heads": ["logreg", "knn", "linear_svm"]})
    assert clone.repro() == [f"train@{BACKBONE}-linear_svm", "compare", "audit"]


def test_the_audit_names_an_altered_image_and_passes_when_it_is_back(clone: Clone) -> None:
    path = next((clone.root / "data/raw/elpv/images").iterdir())
    good = path.read_bytes()
    path.write_bytes(good[:-20] + bytes([good[-20] ^ 1]) + good[-19:])
    assert f"data/raw/elpv/images/{path.name}: expected sha256" in clone.run("headswap", "audit", status=1)
    path.write_bytes(good)
    clone.run("headswap", "audit")


def test_the_same_commit_and_seed_give_the_same_bytes_elsewhere(clone: Clone, tmp_path: Path) -> None:
    other = Clone(tmp_path)
    other.lay_out(PER_STRATUM)
    other.repro()
    for name in ("data/manifest.parquet", "data/manifest.json", f"data/embeddings/{BACKBONE}.h5",
                 f"data/embeddings/{BACKBONE}.json", *(f"metrics/{BACKBONE}/{run}.json" for run in
                 ("logreg", "knn", "last_blocks"))):  # fmt: skip
        assert (other.root / name).read_bytes() == (clone.root / name).read_bytes(), name


def test_new_images_are_the_only_ones_embedded(clone: Clone) -> None:
    clone.lay_out(1, start=PER_STRATUM)
    assert f"embed@{BACKBONE}" in clone.repro()
    assert f"{4 * PER_STRATUM + 4} rows: 4 computed" in clone.output
