"""Somebody's own images, by the commands that the documents show: in, judged, out, and over to a colleague."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.clone import Clone
from tests.test_end_to_end import BACKBONE, SmallClone

COMMIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--all", "-m", "ours")
PER_STRATUM = 12


class OwnClone(SmallClone):
    """A clone with a folder per class in data/raw/mine, and more images in photos."""

    def lay_out(self, per_stratum: int, start: int = 0) -> None:
        super().lay_out(per_stratum, start)
        raw = self.root / "data/raw/elpv"
        for line in (raw / "labels.csv").read_text().splitlines():
            path, probability, _ = line.split()
            target = self.root / "data/raw/mine" / ("defective" if float(probability) > 0.5 else "functional")
            target.mkdir(parents=True, exist_ok=True)
            shutil.move(raw / path, target / Path(path).name)
        shutil.rmtree(raw)
        (self.root / "photos").mkdir()
        for path in sorted((self.root / "data/raw/mine").rglob("*.png"))[::10]:
            shutil.copy(path, self.root / "photos")
        (self.root / "photos/broken.png").write_bytes(b"no image")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, preloaded: Path) -> Iterator[Clone]:
    made = OwnClone(tmp_path_factory.mktemp("own") / "clone", PER_STRATUM)
    made.begin_with(preloaded)
    said = made.run("headswap", "init", "--data", "data/raw/mine", "--yes")
    assert "48 images" in said
    made.set(**{"run.heads": ["logreg"], "run.plans": []})
    made.draw_nothing()
    made.repro()
    yield made
    assert not made.refused.exists(), "something reached for the network"


def test_init_chose_what_runs(clone: Clone) -> None:
    assert json.loads((clone.root / "reports/verdict.json").read_text())["best_head"] == f"{BACKBONE}/logreg"


def test_new_images_are_classified_and_the_bad_one_is_named(clone: Clone) -> None:
    said = clone.run("headswap", "predict", "logreg", "photos", "--out", "predictions.csv")
    assert "photos/broken.png" in said
    rows = list(csv.DictReader((clone.root / "predictions.csv").read_text().splitlines()))
    assert len(rows) == 5
    assert rows[0].keys() >= {"path", "label", "p_defective", "p_functional", "distance", "percentile", "unlike"}
    (clone.root / "predictions.csv").unlink()


def test_the_model_leaves_as_one_file_with_its_card(clone: Clone) -> None:
    assert "at most" in clone.run("headswap", "export", "logreg", "model.onnx")
    assert (clone.root / "model.onnx").stat().st_size > 10_000_000
    assert "defective" in (clone.root / "model.md").read_text()


def test_a_colleague_pulls_everything_and_runs_nothing(clone: Clone, tmp_path: Path) -> None:
    clone.run("dvc", "add", "data/raw/mine")
    clone.run("dvc", "remote", "add", "--default", "store", "../store")
    assert clone.repro()[0] == []
    clone.run("dvc", "push")
    clone.run("git", "add", "data/raw/mine.dvc", "dvc.lock", "metrics", "reports/scores.json", ".dvc/config")
    clone.run(*COMMIT)
    assert "tracked by data/raw/mine.dvc" in clone.run("headswap", "trace", "logreg")

    theirs = Clone.__new__(Clone)
    theirs.root, theirs.environment = tmp_path / "theirs", clone.environment
    clone.run("git", "clone", "--quiet", ".", str(theirs.root))
    # The remote's path is written as it is seen from the first clone.
    theirs.run("dvc", "remote", "modify", "--local", "store", "url", str(clone.root.parent / "store"))
    pulled = theirs.run("dvc", "repro", "--pull")
    assert "Running stage" not in pulled
    assert "nothing was altered" in theirs.run("headswap", "audit")
    assert theirs.repro()[0] == []


def test_what_was_decided_about_the_findings_is_obeyed(clone: Clone) -> None:
    assert "images looked at" in clone.run("headswap", "quality")
    with (clone.root / "reports/quality.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows[0]["decision"] = "exclude"
    with (clone.root / "decided.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    clone.run("headswap", "quality", "--apply", "decided.csv")
    assert rows[0]["sha256"] in (clone.root / "data/excluded.csv").read_text()
    assert "changed since the last run" in clone.run("headswap", "diff", "HEAD")
    ran, _ = clone.repro()
    assert "prepare" in ran
    assert "not run" not in clone.run("headswap", "diff", "HEAD")
    assert rows[0]["sha256"] not in (clone.root / "reports/quality.csv").read_text()
