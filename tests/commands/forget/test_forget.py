"""`headswap forget`: what it removes, which images it understands, and what it leaves to do."""

import contextlib
import shutil
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.core import params, processes
from pipeline.data import exclusions, manifest
from pipeline.embeddings import matrix, upkeep
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.shards import keys_of, sha256_of
from pipeline.evaluation import runs
from pipeline.lineage.audit import forgotten_images
from pipeline.stages import prepare
from tests.commands.forget.repository import CACHE, IMAGE, PATH, collect_garbage, forget, found, rerun, sha256, snapshot
from tests.conftest import Project
from tests.faults import fail_the_nth
from tests.soak import soak


def test_a_dry_run_lists_everything_and_changes_nothing(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot()
    split = manifest.read().split[manifest.read().row_of()[IMAGE]]
    assert split == "train"
    said = forget(capsys, IMAGE)
    assert snapshot() == before
    text = "\n".join(said)
    assert "would be removed; nothing was: add --yes" in said[0]
    for line in (
        "data/excluded.csv 1 added, 0 already listed",
        ".headswap/embeddings 2 rows in 2 shards (an unreadable shard is removed whole)",
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


def test_the_images_rows_are_removed_and_all_others_stay_bit_for_bit(
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
    assert not any(upkeep.held(path, sha256_of(keys_of([gone]))).any() for path in CACHE.rglob("*.h5"))
    assert not any(runs.CHECKPOINTS.iterdir())
    assert PATH.exists()
    assert exclusions.read() == {gone: "forgotten"}
    assert IMAGE not in exclusions.EXCLUDED.read_text()


def test_images_with_the_same_bytes_are_forgotten_together(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
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


def test_while_embed_runs_nothing_is_done(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    processes.EMBED_LOCK.touch()
    before = snapshot()
    with processes.alone(processes.EMBED_LOCK, "another `headswap embed`"):
        (line,) = forget(capsys, IMAGE, "--yes", status=2)
        forget(capsys, IMAGE)
    assert "`headswap embed` is at work in this repository already: " in line
    assert snapshot() == before


def test_the_next_steps_name_a_remote_and_another_user(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert "dvc gc --workspace --cloud" not in forget(capsys, IMAGE)
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("['remote \"far\"']\n    url = s3://x\n")
    (CACHE / "users" / f"{'0' * 64}.json").write_text('{"host": "far", "path": "/away"}')
    said = forget(capsys, IMAGE, "--yes")
    assert "dvc gc --workspace --cloud" in said
    assert any(line.startswith("the cache is shared: ") and "/away on far" in line for line in said)
    assert not any(upkeep.held(path, sha256_of(keys_of([sha256()]))).any() for path in CACHE.rglob("*.h5"))


@pytest.mark.parametrize("step", [3, *soak([1])])
def test_after_any_failure_a_second_run_completes_it(
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
