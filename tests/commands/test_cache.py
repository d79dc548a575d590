"""`headswap cache`, as a user meets it, in a project under git and DVC."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.commands.cache import OLD
from pipeline.embeddings import indexes, upkeep
from pipeline.evaluation import runs
from tests.conftest import Project, write_image

ROOT = Path(".headswap/embeddings")


def embed(project: Project, **sections: object) -> None:
    project.write(**sections)
    assert main(["prepare"]) == 0
    assert main(["embed", "--backbone", "tiny"]) == 0


def rows() -> int:
    return sum(len(upkeep.read_shard(path).keys) for path in ROOT.rglob("*.h5"))


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True, capture_output=True)


def commit(objects: Path) -> None:
    """Do what `dvc repro` and a commit would: put manifest and stamp into DVC's cache and list them in dvc.lock."""
    import hashlib

    lines = ["stages:", "  all:", "    cmd: all", "    outs:"]
    for path in ("data/manifest.parquet", "data/embeddings/tiny.json"):
        content = Path(path).read_bytes()
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        (objects / md5[:2]).mkdir(parents=True, exist_ok=True)
        (objects / md5[:2] / md5[2:]).write_bytes(content)
        lines += [f"    - path: {path}", f"      md5: {md5}", f"      size: {len(content)}"]
    Path("dvc.lock").write_text("\n".join(lines))
    git("add", "dvc.lock")
    git("commit", "-m", "run")


@pytest.fixture
def objects(project: Project) -> Path:
    """Put the project under git and DVC."""
    git("init")
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[core]\n    analytics = false\n")
    return Path(".dvc/cache/files/md5")


def test_it_lists_recipes_with_rows_and_bytes(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache"]) == 0
    assert "0 recipes, 0.0 MB" in capsys.readouterr().out
    embed(project)
    capsys.readouterr()
    assert main(["cache"]) == 0
    total, header, row = capsys.readouterr().out.splitlines()
    assert "1 recipe, " in total
    assert header.split() == ["recipe", "backbone", "layers", "size", "dtype", "rows", "MB", "shards"]
    assert row.split()[1:6] == ["tiny", "second/average", "32", "float16", "36"]


def test_verifying_names_the_damaged_shard_and_exits_with_1(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(project)
    assert main(["cache", "--verify"]) == 0
    (shard,) = ROOT.rglob("*.h5")
    shard.write_bytes(shard.read_bytes()[:-1])
    assert main(["cache", "--verify"]) == 1
    assert f"{shard.name}: altered" in capsys.readouterr().err


def test_pruning_keeps_what_some_commit_needs(
    project: Project, objects: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(project)
    commit(objects)
    write_image(Path("data/raw/red/new.png"), "red", 99)
    embed(project)
    Path("data/raw/red/new.png").unlink()
    embed(project, embed={"dtype": "float32"})
    embed(project, embed={"dtype": "float16"})
    assert rows() == 37 + 36
    assert main(["cache", "--prune"]) == 0
    assert "37 rows in 2 shards" in capsys.readouterr().out
    assert rows() == 37 + 36
    assert main(["cache", "--prune", "--yes"]) == 0
    assert rows() == 36


def test_an_image_only_an_old_commit_has_stays(project: Project, objects: Path) -> None:
    embed(project)
    commit(objects)
    project.images[0].unlink()
    embed(project)
    commit(objects)
    assert main(["cache", "--prune", "--yes"]) == 0
    assert rows() == 36


def test_rows_of_a_run_that_has_not_ended_stay(project: Project, objects: Path) -> None:
    embed(project)
    Path("data/embeddings/tiny.json").unlink()
    assert main(["cache", "--prune", "--yes"]) == 0
    assert rows() == 36


def test_rows_with_unknown_needs_are_pruned_only_on_demand(
    project: Project, objects: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(project)
    commit(objects)
    for path in objects.rglob("*"):
        if path.is_file():
            path.unlink()
    assert main(["cache", "--prune", "--yes"]) == 2
    assert "dvc.lock: data/manifest.parquet: not in DVC's cache" in capsys.readouterr().err
    assert main(["cache", "--prune", "--yes", "--ignore-missing"]) == 0
    assert rows() == 36


def test_an_unreadable_lock_of_a_commit_prevents_pruning(
    project: Project, objects: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(project)
    Path("dvc.lock").write_text("<<<<<<< HEAD")
    git("add", "dvc.lock")
    git("commit", "-m", "broken")
    commit(objects)
    assert main(["cache", "--prune", "--yes"]) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert first.endswith(": dvc.lock: not what DVC writes, so what it needs is not known")
    assert main(["cache", "--prune", "--yes", "--ignore-missing"]) == 0
    assert rows() == 36


def test_a_damaged_object_of_dvc_is_not_parsed(
    project: Project, objects: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(project)
    commit(objects)
    for path in objects.rglob("*"):
        if path.is_file():
            path.write_bytes(b"x")
    assert main(["cache", "--prune"]) == 2
    assert "altered since DVC stored it" in capsys.readouterr().err


def test_another_repositorys_cache_is_not_pruned(
    project: Project, objects: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(project)
    note = ROOT / "users" / f"{'0' * 64}.json"
    note.write_text('{"host": "far", "path": "/away"}')
    assert main(["cache", "--prune", "--yes"]) == 2
    assert f"/away on far uses this cache, too; if it is gone, delete {note}" in capsys.readouterr().err
    assert rows() == 36


def test_merging_leaves_a_matrix_of_the_same_bytes(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    embed(project)
    for number in range(3):
        write_image(Path(f"data/raw/red/new{number}.png"), "red", 99 + number)
        embed(project)
    before = Path("data/embeddings/tiny.h5").read_bytes()
    assert main(["cache", "--merge"]) == 0
    assert "3 fewer shards" in capsys.readouterr().out
    Path("data/embeddings/tiny.h5").unlink()
    embed(project)
    assert Path("data/embeddings/tiny.h5").read_bytes() == before


def test_indexes_do_not_count_as_shards(
    project: Project, objects: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(indexes, "WORTHWHILE", 1)
    embed(project)
    write_image(Path("data/raw/red/new.png"), "red", 99)
    embed(project)
    assert list(ROOT.rglob(f"*{indexes.SUFFIX}"))
    capsys.readouterr()
    assert main(["cache"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[5::2] == ["37", "2"]
    for flag in ("--verify", "--merge", "--verify"):
        assert main(["cache", flag]) == 0
    Path("data/raw/red/new.png").unlink()
    embed(project)
    assert main(["cache", "--prune", "--yes"]) == 0
    assert rows() == 36


def test_what_an_interrupted_training_left_is_listed_and_pruned_after_a_week(
    project: Project, objects: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(project)
    old, new = (runs.CHECKPOINTS / name / "state.safetensors" for name in ("old", "new"))
    for path in (old, new):
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(1_000_000))
        path.with_name(".state.tmp").touch()  # as a killed writer leaves it
    (runs.CHECKPOINTS / "file").touch()
    a_week_ago = time.time() - OLD.total_seconds() - 1
    os.utime(old.parent, (a_week_ago, a_week_ago))
    assert main(["cache"]) == 0
    assert ".headswap/checkpoints: 2 of fine-tuning, 2.0 MB" in capsys.readouterr().out
    assert main(["cache", "--prune"]) == 0
    assert "0 rows in 0 shards and 1 checkpoint, 1.0 MB, would be removed" in capsys.readouterr().out
    assert main(["cache", "--prune", "--yes"]) == 0
    assert (old.parent.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize("flags", [["--verify", "--prune"], ["--yes"], ["--merge", "--ignore-missing"]])
def test_flags_that_make_no_sense_together_are_one_line(
    project: Project, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", *flags]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_rows_that_a_start_from_a_head_is_fitted_on_are_not_pruned(project: Project, objects: Path) -> None:
    plan = {**project.content["plans"]["last"], "start": "logistic", "cached_dtype": "float32"}
    embed(project, plans={"last": plan})
    assert main(["finetune", "--backbone", "tiny", "--plan", "last"]) == 0
    assert rows() == 2 * 36
    assert main(["cache", "--prune", "--yes"]) == 0
    assert rows() == 2 * 36
