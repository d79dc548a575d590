"""A real `dvc repro` on a subset of the real images, in a temporary clone."""

import json
import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from benchmarks.clone import REPOSITORY, Clone
from tests.preloaded import UNDRAWN

BACKBONE = "efficientnet_lite0"
PER_STRATUM = 24


class SmallClone(Clone):
    """A clone with a few images and small settings."""

    def __init__(self, root: Path, per_stratum: int = PER_STRATUM) -> None:
        super().__init__(root)
        self.refused = root.with_name(f"{root.name}.refused")
        self.environment |= {"PYTHONPATH": str(REPOSITORY / "tests/offline"), "REFUSED": str(self.refused)}
        self.set(
            **{
                "embed.runtime": "torch",
                "selection.folds": 2,
                "compare.bootstrap": 200,
                "run.heads": ["logreg", "knn"],
                "heads.logreg.C": [0.01, 0.1],
                "heads.knn": {"n_neighbors": 5},
                "curve": {"fractions": [0.5, 1.0], "seeds": 1, "heads": {"logreg": {"C": 0.01}}, "plans": []},
                f"backbones.{BACKBONE}.image_size": 64,
                "plans.last_blocks.epochs": 1,
                "plans.last_blocks.batch_size": 16,
            }
        )
        self.lay_out(per_stratum)

    def begin_with(self, folder: Path) -> None:
        """Take the commands in a folder instead of others of their names."""
        self.environment["PATH"] = f"{folder}{os.pathsep}{self.environment['PATH']}"

    def draw_nothing(self) -> None:
        """Leave out the charts, which take longer than all else that `compare` does."""
        self.environment[UNDRAWN] = "1"

    def commit(self) -> None:
        """Commit everything that git keeps."""
        self.run("git", "add", ".")
        self.run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "results")

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


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, preloaded: Path) -> SmallClone:
    made = SmallClone(tmp_path_factory.mktemp("clone"))
    made.begin_with(preloaded)
    return made


@pytest.fixture(scope="module")
def first(clone: SmallClone) -> list[str]:
    """Run everything once; the stages that ran."""
    ran, _ = clone.repro()
    clone.draw_nothing()
    return ran


@pytest.fixture(autouse=True)
def _up_to_date(first: list[str]) -> None:
    """Give every test a clone in which nothing is left to do; each leaves it so, whatever it set."""


def test_the_first_run_runs_every_stage(clone: SmallClone, first: list[str]) -> None:
    trained = [f"train@{BACKBONE}-logreg", f"train@{BACKBONE}-knn", f"finetune@{BACKBONE}-last_blocks"]
    before = ["prepare", "thumbnails", f"embed@{BACKBONE}", f"survey@{BACKBONE}", f"curve@{BACKBONE}", "quality"]
    assert first[0] == "prepare"
    assert sorted(first[:-3]) == sorted([*before, *trained])
    assert first[-3:] == ["compare", "lineage", "complete"]
    assert (clone.root / "reports/index.html").stat().st_size < 6_000_000


def test_the_doctor_finds_nothing_wrong(clone: SmallClone) -> None:
    assert "are in order" in clone.run("headswap", "doctor")


def test_with_nothing_changed_nothing_runs(clone: SmallClone) -> None:
    ran, output = clone.repro()
    assert ran == []
    assert "Data and pipelines are up to date." in output


def test_an_edited_head_reruns_alone_without_the_cnn_and_its_old_value_comes_back_without_running(
    clone: SmallClone,
) -> None:
    shards, old = clone.cached_shards(), (clone.root / f"metrics/{BACKBONE}/logreg.json").read_bytes()
    clone.set(**{"heads.logreg.C": [0.0001, 0.001]})
    assert clone.repro()[0] == [f"train@{BACKBONE}-logreg", "compare", "lineage", "complete"]
    assert clone.cached_shards() == shards
    assert (clone.root / f"metrics/{BACKBONE}/logreg.json").read_bytes() != old
    clone.set(**{"heads.logreg.C": [0.01, 0.1]})
    ran, output = clone.repro()
    assert ran == ["complete"]  # it makes nothing that DVC could bring back
    assert "is cached - skipping run" in output
    assert (clone.root / f"metrics/{BACKBONE}/logreg.json").read_bytes() == old


def test_a_head_that_joins_the_list_runs_alone_and_one_that_leaves_it_leaves_the_verdict(clone: SmallClone) -> None:
    clone.set(**{"run.heads": ["logreg", "linear_svm"]})
    assert clone.repro()[0] == [f"train@{BACKBONE}-linear_svm", "compare", "lineage", "complete"]
    judged = (clone.root / "reports/verdict.json").read_text()
    assert f"{BACKBONE}/linear_svm" in judged
    assert f"{BACKBONE}/knn" not in judged


def test_a_head_that_fails_leaves_the_others_their_verdict_and_still_repro_fails(clone: SmallClone) -> None:
    clone.set(**{"run.heads": ["logreg", "knn"], "heads.knn": {"n_neighbors": 5000}})
    said = clone.run("dvc", "repro", status=255)
    assert re.findall(r"Running stage '(.+)'", said) == [f"train@{BACKBONE}-knn", "compare", "lineage", "complete"]
    assert f"headswap complete: {BACKBONE}/knn failed: params.yaml: heads.knn: " in said
    judged = json.loads((clone.root / "reports/verdict.json").read_text())
    assert [one["name"] for one in judged["results"]] == ["logreg", "last_blocks"]
    assert "5000" in judged["failed"][f"{BACKBONE}/knn"]
    assert f"{BACKBONE}/knn</bdi> failed</strong>" in (clone.root / "reports/index.html").read_text()

    again = clone.run("dvc", "repro", "--keep-going", status=255)
    assert re.findall(r"Running stage '(.+)'", again) == ["complete"]
    assert "knn failed, and made nothing" in clone.run("headswap", "audit")
    assert "knn" in clone.run("headswap", "diff", "HEAD")
    assert f"{BACKBONE}/knn: failed: " in clone.run("headswap", "compare", "logreg", "knn", status=2)
    clone.run("dvc", "metrics", "show")
    clone.run("dvc", "plots", "show")

    clone.set(**{"heads.knn": {"n_neighbors": 5}})
    clone.repro()
    assert json.loads((clone.root / "reports/verdict.json").read_text())["failed"] == {}


def test_the_audit_names_an_altered_image_and_passes_when_it_is_back(clone: SmallClone) -> None:
    path = next((clone.root / "data/raw/elpv/images").iterdir())
    good = path.read_bytes()
    path.write_bytes(good[:-20] + bytes([good[-20] ^ 1]) + good[-19:])
    assert f"data/raw/elpv/images/{path.name}: expected sha256" in clone.run("headswap", "audit", status=1)
    path.write_bytes(good)
    assert json.loads(clone.run("headswap", "audit", "--json"))["findings"] == []


def test_the_same_commit_and_seed_give_the_same_bytes_elsewhere(
    clone: SmallClone, tmp_path: Path, preloaded: Path
) -> None:
    other = SmallClone(tmp_path)
    other.begin_with(preloaded)
    on = ("--backbone", BACKBONE)
    for stage in (("prepare",), ("embed", *on), ("train", *on, "--head", "logreg"), ("train", *on, "--head", "knn"),
                  ("finetune", *on, "--plan", "last_blocks")):  # fmt: skip
        other.run("headswap", *stage)
    names = [
        "data/manifest.parquet",
        f"data/embeddings/{BACKBONE}.h5",
        f"models/{BACKBONE}/last_blocks/model.safetensors",
    ]
    for run in ("logreg", "knn", "last_blocks"):
        names += [f"predictions/{BACKBONE}/{run}.parquet", f"metrics/{BACKBONE}/{run}.json"]
    for name in names:
        assert (other.root / name).read_bytes() == (clone.root / name).read_bytes(), name


def test_the_commands_around_the_cache_say_what_they_find(clone: SmallClone) -> None:
    forecast = clone.run("headswap", "embed", "--backbone", "efficientnet_lite0", "--dry-run")
    assert "embed: 0 of " in forecast
    listed = clone.run("headswap", "cache")
    assert "2 recipes" in listed  # the embeddings', and that of the plan's frozen part
    assert f"{BACKBONE}  block4 augmented" in listed
    assert "are unaltered" in clone.run("headswap", "cache", "--verify")
    assert "0 rows in 0 shards, 0.0 MB, would be removed" in clone.run("headswap", "cache", "--prune")
    clone.run("headswap", "cache", "--merge")


@pytest.mark.soak
def test_every_backbone_is_listed(clone: SmallClone) -> None:
    assert "efficientnet_lite0  1280" in clone.run("headswap", "backbones")


def test_what_is_expensive_says_so_before_it_starts(clone: SmallClone) -> None:
    plan = clone.run("headswap", "finetune", "--backbone", "efficientnet_lite0", "--plan", "last_blocks", "--dry-run")
    assert re.search(r"frozen part: 0 rows to store, .*; at most 1 epochs, about \d+ s; nothing was computed", plan)
    before = (clone.root / "params.yaml").read_text()
    clone.set(**{"curve.plans": ["last_blocks"]})
    curve = clone.run("headswap", "curve", "--backbone", "efficientnet_lite0", "--dry-run")
    (clone.root / "params.yaml").write_text(before)
    assert re.search(
        r"2 trainings per head and plan, on \d+, \d+ images; last_blocks: frozen part: .*; 2 trainings, about \d+ s",
        curve,
    )


@pytest.mark.soak
def test_two_processes_share_a_plan_and_end_where_one_does(clone: SmallClone) -> None:
    path = clone.root / f"metrics/{BACKBONE}/last_blocks.json"
    alone = json.loads(path.read_text())["validation"]
    clone.run("torchrun", "--nproc-per-node", "2", "-m", "pipeline", "finetune", "--backbone", "efficientnet_lite0",
              "--plan", "last_blocks")  # fmt: skip
    assert json.loads(path.read_text())["validation"]["log_loss"] == pytest.approx(alone["log_loss"], abs=1e-3)
    clone.repro()


def test_dvcs_own_commands_show_metrics_plots_and_experiments(clone: SmallClone) -> None:
    clone.commit()
    path = f"metrics/{BACKBONE}/logreg.json"
    assert "validation.accuracy" in clone.run("dvc", "metrics", "show", path, "--md")

    ran = clone.run("dvc", "exp", "run", "-S", "heads.logreg.C=0.0003", "--name", "small-c")
    assert f"Running stage 'train@{BACKBONE}-logreg'" in ran
    assert f"Running stage 'train@{BACKBONE}-knn'" not in ran
    assert "C: 0.0003" in (clone.root / "params.yaml").read_text()
    changed = clone.run("dvc", "metrics", "diff", "--md")
    assert "validation.log_loss" in changed
    assert f"test.{BACKBONE}/logreg" in changed
    assert "small-c" in clone.run("dvc", "exp", "show", "--md")

    assert "index.html" in clone.run("dvc", "plots", "show")
    page = (clone.root / "dvc_plots/index.html").read_text()
    assert all(f"{run} on {BACKBONE}, confusion" in page for run in ("logreg", "knn", "last_blocks"))
    assert all(title in page for title in ("Test score of every run", "Paired difference", "Test score by number"))


def test_the_verdict_can_be_shown_again_and_two_runs_compared(
    clone: SmallClone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(clone.environment, "BROWSER", "true")  # the command of that name
    said = json.loads((clone.root / "reports/verdict.json").read_text())["sentence"]
    assert said in clone.run("headswap", "report", "--open")
    assert "McNemar p" in clone.run("headswap", "compare", "logreg", "last_blocks")


def test_a_model_answers_for_images(clone: SmallClone) -> None:
    said = clone.run("headswap", "predict", "logreg", "data/raw/elpv/images", "--out", "new.csv")
    (clone.root / "new.csv").unlink()
    assert re.search(r"\d+ images: .*; 0 went through the CNN", said)


@pytest.mark.soak
def test_a_model_leaves_as_one_file(clone: SmallClone) -> None:
    assert "at most" in clone.run("headswap", "export", "logreg", "cells.onnx")
    for name in ("cells.onnx", "cells.md"):
        (clone.root / name).unlink()


def test_the_lineage_can_be_followed_checked_compared_and_exported(clone: SmallClone) -> None:
    assert "sizes agree" in clone.run("headswap", "audit", "--quick")
    assert re.search(r"20 rows recomputed: 20 bit for bit", clone.run("headswap", "audit", "--recompute", "20"))
    third = "images/cell0003.png"
    assert (clone.root / "data/raw/elpv" / third).exists()
    for what in (("headswap", "trace", "images/cell0001.png"), ("headswap", "trace", "logreg"),
                 ("headswap", "trace", "logreg:accuracy"), ("headswap", "trace", "reports/verdict.json")):  # fmt: skip
        assert f"{BACKBONE}/logreg" in clone.run(*what), what
    judged = next(line for line in clone.run("headswap", "trace", third).splitlines() if "split" in line)
    status = 2 if "train" in judged else 0
    assert third in clone.run("headswap", "trace", "logreg:images/cell0003.png", status=status)
    assert "Images" in clone.run("headswap", "diff", "HEAD")
    assert "would be removed; nothing was: add --yes" in clone.run("headswap", "forget", "images/cell0002.png")
    clone.run("headswap", "provenance", "prov", "lineage.prov.json")
    clone.run("headswap", "provenance", "openlineage", "lineage.openlineage.json")
    assert "in order" in clone.run("headswap", "doctor", "--fix")


def test_new_images_are_the_only_ones_embedded(clone: SmallClone) -> None:
    clone.commit()
    clone.lay_out(1, start=PER_STRATUM)
    said = clone.run("headswap", "diff", "HEAD")
    assert "data/raw/elpv: changed since the last run: " in said
    assert "the same" not in said
    ran, output = clone.repro(f"embed@{BACKBONE}")
    assert ran == ["prepare", f"embed@{BACKBONE}"]
    assert f"{4 * PER_STRATUM + 4} rows: 4 computed" in output


def locked_outs(lock: Path) -> list[dict[str, object]]:
    """Return what dvc.lock says of the matrix and its stamp; seconds stand in the third file."""
    outs = YAML(typ="safe").load(lock)["stages"][f"embed@{BACKBONE}"]["outs"]
    return [out for out in outs if not out["path"].endswith(".cost.json")]


def holds_rows_of(matrix: Path, folder: Path) -> bool:
    recipe = folder / "recipe.json"
    stamp = json.loads(matrix.with_suffix(".json").read_text())
    return recipe.exists() and json.loads(recipe.read_text()) == stamp["facts"]["recipe"]


def test_tampering_is_not_laundered_into_dvc_lock(clone: SmallClone) -> None:
    path, lock = clone.root / f"data/embeddings/{BACKBONE}.h5", clone.root / "dvc.lock"
    good, locked = path.read_bytes(), lock.read_bytes()
    bad = good[:-100] + bytes([good[-100] ^ 1]) + good[-99:]

    path.write_bytes(bad)  # a changed time: DVC looks, and the true bytes come back
    clone.run("dvc", "repro", f"embed@{BACKBONE}")
    assert (path.read_bytes(), lock.read_bytes()) == (good, locked)

    before = path.stat()
    path.write_bytes(bad)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # the old time: DVC believes it
    settings = (clone.root / "params.yaml").read_text()
    clone.set(**{"heads.knn.n_neighbors": 7})
    assert "sha256: got" in clone.run("dvc", "repro", f"train@{BACKBONE}-knn", status=255)
    assert lock.read_bytes() == locked
    assert f"{path.name}: expected sha256" in clone.run("headswap", "audit", status=1)
    path.write_bytes(good)
    (clone.root / "params.yaml").write_text(settings)


def test_a_tampered_shard_stops_the_stage_and_its_rows_come_back_as_they_were(clone: SmallClone) -> None:
    path, lock = clone.root / f"data/embeddings/{BACKBONE}.h5", clone.root / "dvc.lock"
    good, outs = path.read_bytes(), locked_outs(lock)
    again = ("dvc", "repro", "--single-item", "--force", f"embed@{BACKBONE}")
    (folder,) = (folder for folder in (clone.root / ".headswap/embeddings").iterdir() if holds_rows_of(path, folder))
    shard = next(folder.glob("*.h5"))
    content, times = shard.read_bytes(), shard.stat()
    shard.write_bytes(content[:-100] + bytes([content[-100] ^ 1]) + content[-99:])
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert shard.name in clone.run("headswap", "audit", status=1)
    assert "altered since it was written" in clone.run(*again, status=255)
    assert locked_outs(lock) == outs
    shard.unlink()
    clone.run(*again)
    assert path.read_bytes() == good
    assert locked_outs(lock) == outs


def test_nothing_ever_reached_for_the_network(clone: SmallClone) -> None:
    reach = "import urllib.request; urllib.request.urlopen('http://example.invalid')"
    assert "offline: example.invalid" in clone.run("python", "-c", reach, status=1)
    assert clone.refused.read_text().splitlines() == ["example.invalid"]
