"""`headswap forget` and the audit name all that still carries a forgotten image."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from pipeline.core import locks, params
from pipeline.data import exclusions
from pipeline.evaluation import runs
from pipeline.lineage.audit import carriers, forgotten_images
from pipeline.stages import prepare
from tests.commands.forget.repository import (
    CACHE,
    IMAGE,
    OBJECTS,
    PATH,
    collect_garbage,
    commit,
    forget,
    found,
    git,
    lock,
    rerun,
    sha256,
    snapshot,
    stages,
    stored,
)
from tests.conftest import Project


def test_an_image_that_only_an_old_commit_lists_can_be_forgotten(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = sha256()
    rerun(project)
    said = forget(capsys, IMAGE, "--yes")
    assert f"(sha256 {gone[:10]}...)" in said[0]
    assert any(line.startswith("commit ") and "data/manifest.parquet in DVC's cache" in line for line in said)
    assert not any(line.startswith("dvc.lock: ") for line in said)


def test_objects_whose_manifest_is_gone_are_listed_as_not_known(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    md5 = locks.read()["prepare"].outs["data/manifest.parquet"].md5
    (OBJECTS / md5[:2] / md5[2:]).unlink()
    stored(b"nobody's")
    said = forget(capsys, IMAGE, "--yes")
    assert any(line.startswith("dvc.lock: data/embeddings/tiny.h5 not known, as its manifest is gone") for line in said)
    assert "1 other objects not known, as no dvc.lock lists them; in DVC's cache" in said
    assert sum(path.startswith("objects/") for path in found()) == sum(one.is_file() for one in OBJECTS.glob("*/*"))


def test_in_a_shared_cache_only_objects_made_from_the_image_are_found(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(b"another project's")
    shared = Path.cwd().with_name("shared")
    OBJECTS.rename(shared)
    monkeypatch.setattr(locks, "objects_of", lambda root: shared)
    said = forget(capsys, IMAGE, "--yes")
    assert not any("other objects" in line for line in said)
    assert next(line for line in said if line.startswith("dvc gc")).startswith("dvc gc --workspace --projects ... #")
    told = [finding for finding in forgotten_images.find(params.load()) if finding.path.startswith(str(shared))]
    mine = {path.as_posix() for path in shared.glob("*/*") if path.read_bytes() != b"another project's"}
    assert {one.path for one in told} == mine
    assert all("`dvc gc --workspace --projects ...`" in one.found for one in told)


def test_an_unreadable_lock_of_a_commit_is_listed_and_stops_nothing(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("dvc.lock").write_text("stages: {")
    git("commit", "-a", "-m", "broken")
    commit()
    said = forget(capsys, IMAGE, "--yes")
    assert any(line.endswith(": dvc.lock not known, as DVC did not write it") for line in said)
    assert found()


def test_a_broken_lock_of_the_working_tree_stops_it_at_once(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("dvc.lock").write_text("stages: {")
    before = snapshot()
    (line,) = forget(capsys, IMAGE, "--yes", status=2)
    assert "dvc.lock: not what DVC writes" in line
    assert snapshot() == before


@pytest.mark.parametrize("named", ["other", None])
def test_earlier_cache_folders_are_searched_and_cleaned(
    project: Project, capsys: pytest.CaptureFixture[str], named: str | None
) -> None:
    """`named` is what an older commit's lock says, where the usual folder is not named."""
    earlier = CACHE if named is None else Path(named)
    if named:
        CACHE.rename(named)
    old = stages()
    old["embed@tiny"]["params"] = {"params.yaml": {"embed": {"cache": named} if named else {}}}  # type: ignore[index]
    lock(old)
    git("commit", "-a", "-m", "earlier")
    commit()
    project.write(embed={"cache": "now"})
    exclusions.add([sha256()], "forgotten")
    shards = {path.as_posix() for path in earlier.glob("*/*.h5")}
    assert shards <= set(found())
    assert f"{earlier} 2 rows in 2 shards (an unreadable shard is removed whole)" in forget(capsys, IMAGE, "--yes")
    assert not [path for path in found() if path.startswith(str(earlier))]


def test_a_file_among_checkpoints_is_no_checkpoint(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (runs.CHECKPOINTS / "file").touch()
    os.utime(runs.CHECKPOINTS / "file", (0, 0))
    assert ".headswap/checkpoints 1 interrupted trainings" in forget(capsys, IMAGE, "--yes")
    assert [path.name for path in runs.CHECKPOINTS.iterdir()] == ["file"]
    assert not any("checkpoints" in path for path in found())


def test_outputs_that_an_unfinished_rerun_left_in_the_lock_are_found(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    forget(capsys, IMAGE, "--yes")
    PATH.unlink()
    prepare.main(params.load())
    old = json.loads(Path("dvc.lock").read_text())["stages"]
    lock({**old, "prepare": stages()["prepare"]})
    collect_garbage()
    model = locks.read()["train@tiny-logreg"].outs["models/tiny/logreg"].md5
    assert (OBJECTS / model[:2] / model[2:]).as_posix() in found()


def test_raw_data_that_dvc_tracks_is_judged_by_its_own_bytes(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        {"md5": stored(path.read_bytes()), "relpath": path.relative_to(Path.cwd() / "data/raw").as_posix()}
        for path in project.images
    ]
    whole = stored(json.dumps(files).encode(), ".dir")
    Path("data/raw.dvc").write_text(json.dumps({"outs": [{"md5": whole, "path": "raw"}]}))
    md5 = hashlib.md5(PATH.read_bytes(), usedforsecurity=False).hexdigest()
    forget(capsys, IMAGE, "--yes")
    rerun(project)
    raw = {file["md5"] for file in files} | {whole}
    told = {path.removeprefix("objects/").replace("/", "") for path in found()}
    assert told & raw == {md5}


def test_a_run_that_is_no_longer_listed_is_found(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("models/tiny/logreg", "models/tiny/dropped")
    shutil.copy("predictions/tiny/logreg.parquet", "predictions/tiny/dropped.parquet")
    forget(capsys, IMAGE, "--yes")
    rerun(project)
    collect_garbage()
    assert found() == ["models/tiny/dropped/run.json"]
    assert "models/tiny/dropped not known: made from an older data/manifest.parquet, or altered" in forget(
        capsys, exclusions.forgotten()[0]
    )


def test_old_checkpoints_and_temporary_files_are_found(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    forget(capsys, IMAGE, "--yes")
    old = runs.CHECKPOINTS / "x/y.safetensors"
    old.parent.mkdir()
    old.write_bytes(b"")
    os.utime(old, (0, 0))
    left = next(CACHE.glob("*/*.h5")).with_name(".x.h5.1.tmp")
    left.write_bytes(b"")
    assert {old.parent.as_posix(), left.as_posix()} <= set(found())


def test_files_that_were_hashed_already_are_not_read_again(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = sha256()
    exclusions.add([gone], "forgotten")
    known = {path.relative_to(Path.cwd()).as_posix(): "f" * 64 for path in project.images}
    known[str(PATH)] = gone
    monkeypatch.setattr(carriers, "_hash", None)
    assert str(PATH) in [finding.path for finding in forgotten_images.find(params.load(), known)]
