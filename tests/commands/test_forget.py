"""`headswap forget`, as a user meets it: on a project that has run, under git, with objects in DVC's cache."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.core import locks, params, processes
from pipeline.data import exclusions, manifest
from pipeline.embeddings import matrix, upkeep
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.shards import keys_of
from pipeline.evaluation import runs
from pipeline.lineage.audit import carriers, forgotten_images
from pipeline.networks import backbones
from pipeline.stages import prepare
from tests.conftest import TINY, Project, lay_out
from tests.faults import fail_the_nth
from tests.soak import soak
from tests.stages.spine import run, undrawn, working_in

IMAGE, PATH = "blue/01.png", Path("data/raw/blue/01.png")
OBJECTS = Path("objects")
CACHE = Path(".headswap/embeddings")
STAGES = {
    "prepare": (["data/manifest.parquet"], []),
    "embed@tiny": (["data/embeddings/tiny.h5"], ["data/manifest.parquet"]),
    "train@tiny-logreg": (["models/tiny/logreg", "predictions/tiny/logreg.parquet"], ["data/manifest.parquet"]),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a project of 24 images that has run, once."""
    with working_in(tmp_path_factory.mktemp("made")) as root:
        run(lay_out(root, 8), embed={"copies": 1})
        yield root


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Stand in a copy of it, under git and with DVC's objects in a folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locks, "objects_of", lambda root: OBJECTS)
    monkeypatch.setitem(backbones.BACKBONES, "tiny", TINY)  # type: ignore[arg-type]
    (runs.CHECKPOINTS / "x").mkdir(parents=True)
    (runs.CHECKPOINTS / "x/y.safetensors").write_bytes(b"")
    git("init", "--quiet")
    commit()
    found = Project(tmp_path)
    found.content = params.YAML(typ="safe").load(Path("params.yaml").read_text())
    return found


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True, capture_output=True)


def stored(content: bytes, suffix: str = "") -> str:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + suffix
    (OBJECTS / md5[:2]).mkdir(parents=True, exist_ok=True)
    (OBJECTS / md5[:2] / md5[2:]).write_bytes(content)
    return md5


def commit() -> None:
    """Do what `dvc repro` and a commit would."""
    lock(stages())
    git("add", "dvc.lock")
    git("commit", "--allow-empty", "-m", "run")


def lock(content: dict[str, object]) -> None:
    Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": content}))


def stages() -> dict[str, object]:
    """Put what the stages made into DVC's cache; return what dvc.lock says of it."""

    def entry(path: str) -> dict[str, object]:
        if not Path(path).is_dir():
            return {"path": path, "md5": stored(Path(path).read_bytes()), "size": 1}
        files = [{"md5": stored(file.read_bytes()), "relpath": file.name} for file in sorted(Path(path).iterdir())]
        return {"path": path, "md5": stored(json.dumps(files).encode(), ".dir"), "size": 1, "nfiles": len(files)}

    return {
        name: {"cmd": name, "outs": [*map(entry, outs)], "deps": [*map(entry, deps)]}
        for name, (outs, deps) in STAGES.items()
    }


def rerun(project: Project) -> None:
    """Delete the raw file and run everything that depends on it."""
    PATH.unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        undrawn(patch)
        run(project)
    commit()


def collect_garbage() -> None:
    """Do what `dvc gc --workspace` would."""
    named = {md5 for stage in locks.read().values() for out in stage.outs.values() for md5 in objects_of(out.md5)}
    for path in OBJECTS.glob("*/*"):
        if path.parent.name + path.name not in named:
            path.unlink()


def objects_of(md5: str) -> list[str]:
    content = (OBJECTS / md5[:2] / md5[2:]).read_bytes()
    return [md5, *([file["md5"] for file in json.loads(content)] if md5.endswith(".dir") else [])]


def forget(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> list[str]:
    """Run it; return the lines it printed, white space made plain."""
    capsys.readouterr()
    assert main(["forget", *arguments]) == status
    said = capsys.readouterr()
    return [" ".join(line.split()) for line in (said.out + said.err).splitlines()]


def sha256() -> str:
    table = manifest.read()
    return table.sha256[table.row_of()[IMAGE]]


def snapshot() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and ".git" not in path.parts}


def found() -> list[str]:
    return [finding.path for finding in forgotten_images.find(params.load())]


def test_a_dry_run_says_all_and_changes_nothing(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot()
    split = manifest.read().split[manifest.read().row_of()[IMAGE]]
    assert split == "train"
    said = forget(capsys, IMAGE)
    assert snapshot() == before
    text = "\n".join(said)
    assert "would be removed; nothing was: add --yes" in said[0]
    for line in (
        "data/excluded.csv 1 added to what is left out, 0 in it already",
        ".headswap/embeddings 2 rows in 2 shards, or what of these cannot be read",
        "data/embeddings/tiny.h5 2 rows",
        ".headswap/checkpoints 1 interrupted trainings",
        f"{PATH} the image itself: yours to delete",
        "data/manifest.parquet its row",
        "data/thumbnails.parquet a small picture of it",
        "survey/tiny.parquet its place on the map",
        "curves/tiny.parquet models trained on it, or decisions on it",
        "models/tiny/logreg a model trained on it",
        "models/tiny/last a model trained on it",
        "reports/index.html made of it among others",
        "delete the raw files named above, and their lines in labels.csv if there is one",
        "dvc repro # trains everything anew: results will differ a little",
    ):
        assert line in said, text
    assert any(line.startswith("dvc.lock: data/manifest.parquet in DVC's cache: 1 object") for line in said)
    assert any(line.startswith("dvc.lock: models/tiny/logreg in DVC's cache: ") for line in said)
    assert said.index(f"{PATH} the image itself: yours to delete") == said.index("still carried by:") + 1


def test_after_the_rerun_the_audit_proves_that_nothing_carries_it(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found() == []
    gone = sha256()
    forget(capsys, IMAGE, "--yes")
    assert str(PATH) in found()
    assert "data/manifest.parquet" in found()
    rerun(project)
    assert {path.split("/")[0] for path in found()} == {"objects"}
    collect_garbage()
    assert forgotten_images.find(params.load()) == []
    assert gone not in manifest.read().sha256
    said = forget(capsys, gone)
    assert "nothing else is known to carry them" in said


def test_rows_of_the_image_go_and_all_others_stay_bit_for_bit(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    before, gone = matrix.read("tiny"), sha256()
    row = list(before.image_id).index(IMAGE)
    kept = [bytes(sha).hex() for sha in before.sha256 if bytes(sha).hex() != gone]
    forget(capsys, IMAGE, "--yes")
    after = matrix.read("tiny")
    assert after.features.tobytes() == b"".join(one.tobytes() for at, one in enumerate(before.features) if at != row)
    cache = EmbeddingCache(CACHE, after.recipe)
    assert cache.missing(keys_of(kept)).size == 0
    assert cache.missing(keys_of([gone])).tolist() == [0]
    assert not any(upkeep.held(path, carriers.hashes([gone])).any() for path in CACHE.rglob("*.h5"))
    assert not any(runs.CHECKPOINTS.iterdir())
    assert PATH.exists()
    assert exclusions.read() == {gone: "forgotten"}
    assert IMAGE not in exclusions.EXCLUDED.read_text()


def test_images_with_the_same_bytes_go_together(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    twin = PATH.with_name("twin.png")
    shutil.copy(PATH, twin)
    prepare.main(params.load())
    said = forget(capsys, "blue/twin.png")
    assert f"{twin} the image itself: yours to delete" in said
    assert f"{PATH} the image itself: yours to delete" in said


@pytest.mark.parametrize("name", [IMAGE, str(PATH), "absolute", "sha256", "eight"])
def test_an_image_has_many_names(project: Project, capsys: pytest.CaptureFixture[str], name: str) -> None:
    names = {"absolute": str(PATH.absolute()), "sha256": sha256(), "eight": sha256()[:8]}
    assert f"(sha256 {sha256()[:10]}...)" in forget(capsys, names.get(name, name))[0]


def test_unknown_and_ambiguous_images_are_all_named_and_nothing_is_done(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    table = manifest.read()
    alike = ["a" * 63 + "0", "a" * 63 + "1", *table.sha256[2:]]
    manifest.write(manifest.Manifest(**{**vars(table), "sha256": alike}), {})
    before = snapshot()
    said = forget(capsys, "blue/1.png", IMAGE, "aaaaaaaa", "a" * 7, "--yes", status=2)
    assert snapshot() == before
    assert len(said) == 4
    assert "IMAGE: got 'blue/1.png', expected the id, path or sha256 of an image; none is meant by it" in said[0]
    assert "blue/01.png" not in said[0]  # what cannot be taken back is not suggested
    assert "IMAGE: got 'aaaaaaaa', which means 2 images; expected one of: aaa" in said[1]
    assert "IMAGE: got 'aaaaaaa', expected the id" in said[2]


def test_an_image_that_only_an_old_commit_lists_can_be_forgotten(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = sha256()
    rerun(project)
    said = forget(capsys, IMAGE, "--yes")
    assert f"(sha256 {gone[:10]}...)" in said[0]
    assert any(line.startswith("commit ") and "data/manifest.parquet in DVC's cache" in line for line in said)
    assert not any(line.startswith("dvc.lock: ") for line in said)


def test_objects_whose_manifest_is_gone_are_not_known_and_found(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    md5 = locks.read()["prepare"].outs["data/manifest.parquet"].md5
    (OBJECTS / md5[:2] / md5[2:]).unlink()
    stored(b"nobody's")
    said = forget(capsys, IMAGE, "--yes")
    assert any(
        line.startswith("dvc.lock: data/embeddings/tiny.h5 not known, for its manifest is gone") for line in said
    )
    assert "1 other objects not known, for no dvc.lock lists them; in DVC's cache" in said
    assert sum(path.startswith("objects/") for path in found()) == sum(one.is_file() for one in OBJECTS.glob("*/*"))


def test_of_objects_that_are_shared_only_what_comes_of_the_image_is_found(
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


def test_an_unreadable_lock_of_a_commit_is_not_known_and_stops_nothing(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("dvc.lock").write_text("stages: {")
    git("commit", "-a", "-m", "broken")
    commit()
    said = forget(capsys, IMAGE, "--yes")
    assert any(line.endswith(": dvc.lock not known, for it is not what DVC writes") for line in said)
    assert found()


def test_a_broken_lock_of_the_working_tree_stops_it_before_anything_is_done(
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
    assert f"{earlier} 2 rows in 2 shards, or what of these cannot be read" in forget(capsys, IMAGE, "--yes")
    assert not [path for path in found() if path.startswith(str(earlier))]


def test_a_name_that_is_the_id_of_one_image_and_the_path_of_another_is_ambiguous(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    table, row = manifest.read(), 8
    renamed = {
        "image_id": [*table.image_id[:row], str(PATH), *table.image_id[row + 1 :]],
        "path": [*table.path[:row], f"data/raw/{PATH}", *table.path[row + 1 :]],
    }
    manifest.write(manifest.Manifest(**{**vars(table), **renamed}), {})
    line, _ = forget(capsys, str(PATH), "--yes", status=2)
    assert f"which means 2 images; expected one of: {', '.join(sorted([sha256(), table.sha256[row]]))}" in line


def test_beside_an_embed_at_work_nothing_is_done(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    processes.EMBED_LOCK.touch()
    before = snapshot()
    with processes.alone(processes.EMBED_LOCK, "another `headswap embed`"):
        (line,) = forget(capsys, IMAGE, "--yes", status=2)
        forget(capsys, IMAGE)
    assert "`headswap embed` is at work in this repository already: " in line
    assert snapshot() == before


def test_a_plain_file_among_checkpoints_is_none(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (runs.CHECKPOINTS / "file").touch()
    os.utime(runs.CHECKPOINTS / "file", (0, 0))
    assert ".headswap/checkpoints 1 interrupted trainings" in forget(capsys, IMAGE, "--yes")
    assert [path.name for path in runs.CHECKPOINTS.iterdir()] == ["file"]
    assert not any("checkpoints" in path for path in found())


def test_what_a_half_finished_rerun_left_in_the_lock_is_found(
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


def test_raw_data_that_dvc_tracks_is_told_by_its_own_bytes(
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


def test_a_checkpoint_that_came_back_and_a_temporary_file_are_found(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    forget(capsys, IMAGE, "--yes")
    old = runs.CHECKPOINTS / "x/y.safetensors"
    old.parent.mkdir()
    old.write_bytes(b"")
    os.utime(old, (0, 0))
    left = next(CACHE.glob("*/*.h5")).with_name(".x.h5.1.tmp")
    left.write_bytes(b"")
    assert {old.parent.as_posix(), left.as_posix()} <= set(found())


def test_the_next_steps_name_a_remote_and_another_user(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert "dvc gc --workspace --cloud" not in forget(capsys, IMAGE)
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("['remote \"far\"']\n    url = s3://x\n")
    (CACHE / "users" / f"{'0' * 64}.json").write_text('{"host": "far", "path": "/away"}')
    said = forget(capsys, IMAGE, "--yes")
    assert "dvc gc --workspace --cloud" in said
    assert any(line.startswith("the cache is shared: ") and "/away on far" in line for line in said)
    assert not any(upkeep.held(path, carriers.hashes([sha256()])).any() for path in CACHE.rglob("*.h5"))


def test_files_that_were_hashed_already_are_not_read_again(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = sha256()
    exclusions.add([gone], "forgotten")
    known = {path.relative_to(Path.cwd()).as_posix(): "f" * 64 for path in project.images}
    known[str(PATH)] = gone
    monkeypatch.setattr(carriers, "_hash", None)
    assert str(PATH) in [finding.path for finding in forgotten_images.find(params.load(), known)]


@pytest.mark.parametrize("step", [3, *soak([1])])
def test_whatever_fails_on_the_way_a_second_time_completes_it(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    gone, recipe = sha256(), matrix.read("tiny").recipe
    kept = keys_of(sha for sha in manifest.read().sha256 if sha != gone)
    shutil.copytree(".", "../before", ignore=shutil.ignore_patterns(".git"))
    for number in range(step, 40, step):
        for folder in (".headswap", "data/embeddings"):
            shutil.rmtree(folder)
            shutil.copytree(Path("../before") / folder, folder)
        exclusions.EXCLUDED.unlink(missing_ok=True)
        with monkeypatch.context() as patch, contextlib.suppress(OSError):
            failed = fail_the_nth(number, patch)
            main(["forget", IMAGE, "--yes"])
        assert EmbeddingCache(CACHE, recipe).missing(kept).size == 0
        forget(capsys, IMAGE, "--yes")
        assert EmbeddingCache(CACHE, recipe).missing(kept).size == 0
        left = [path for path in found() if path.startswith((str(CACHE), "data/embeddings", ".headswap"))]
        assert left == []
        if not failed:
            assert number > 6
            return
    pytest.fail("it never came to an end")
