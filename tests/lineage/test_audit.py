"""Every altered byte, file and row is found, in a project that DVC has recorded; and nothing else is."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import cli
from pipeline.core import locks, params
from pipeline.data import manifest
from pipeline.lineage.audit.audit import audit
from tests.conftest import Project
from tests.lineage.altering import altered, found
from tests.soak import soak

POSITIONS = [*range(2), *soak(range(2, 20))]


TABLES = ("data/manifest.parquet", "data/manifest.json", "reports/lineage.json", "data/embeddings/tiny.json")
"""By which the audit finds other files: flipped apart from those."""


def kinds() -> list[str]:
    """Return one file of every kind of artifact, whose alteration hides no other's."""
    lock = locks.read()
    objects = [
        lock["embed@tiny"].outs["data/embeddings/tiny.h5"].md5,
        lock["train@tiny-logreg"].outs["models/tiny/logreg"].md5,
    ]
    (shard,) = Path(".headswap/embeddings").glob("*/*.h5")
    run = min(Path(".dvc/cache/runs").glob("*/*/*"))
    return [
        "data/raw/red/03.png", "tiny.pth", "data/embeddings/tiny.h5", "data/embeddings/tiny.cost.json",
        shard.as_posix(),
        "curves/tiny.parquet", "curves/tiny.json", "survey/tiny.parquet", "survey/tiny.json",
        "data/thumbnails.parquet", "data/thumbnails.webp", "data/thumbnails.json",
        "models/tiny/logreg/model.skops", "models/tiny/logreg/run.json", "models/tiny/last/model.safetensors",
        "models/tiny/last/run.json", "predictions/tiny/logreg.parquet", "predictions/tiny/last.parquet",
        "metrics/tiny/logreg.json", "plots/tiny/last/loss.csv", "reports/verdict.json", "reports/scores.json",
        "reports/plots/scores.csv", "reports/index.html", "reports/compare.json", "reports/quality.json",
        "reports/quality.csv", "reports/quality-stamp.json", "pipeline/stages/train.py",
        *(f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}" for md5 in objects), run.as_posix(),
    ]  # fmt: skip


def flip(generator: random.Random) -> Callable[[bytes], bytes]:
    def alter(content: bytes) -> bytes:
        place, bit = generator.randrange(len(content)), generator.randrange(8)
        return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]

    return alter


def test_nothing_is_found_where_nothing_was_altered(recorded: Project) -> None:
    assert found() == found(quick=True) == []


@pytest.mark.parametrize("position", POSITIONS)
def test_a_flipped_bit_is_found_in_every_kind_of_file_and_nowhere_else(recorded: Project, position: int) -> None:
    generator, names = random.Random(position), kinds()
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(altered(name, flip(generator)))
        assert set(found()) == set(names)


def test_what_cannot_be_checked_because_of_another_altered_file_is_no_finding_of_its_own(recorded: Project) -> None:
    (shard,) = Path(".headswap/embeddings").glob("*/*.h5")
    with altered(shard.as_posix(), flip(random.Random(0))):
        assert found() == [shard.as_posix()]


@pytest.mark.parametrize("position", POSITIONS)
def test_a_flipped_bit_is_found_in_the_files_that_list_others(recorded: Project, position: int) -> None:
    generator = random.Random(position)
    with ExitStack() as stack:
        for name in TABLES:
            stack.enter_context(altered(name, flip(generator)))
        assert set(found()) == set(TABLES)


@pytest.mark.parametrize("position", POSITIONS)
def test_a_flipped_bit_is_found_in_dvc_lock(recorded: Project, position: int) -> None:
    with altered("dvc.lock", flip(random.Random(position))):
        assert found()


@pytest.mark.parametrize("alter", [lambda content: content[:-1], lambda content: content + b"\0", lambda content: b""])
def test_a_truncated_appended_or_emptied_file_is_found(recorded: Project, alter: Callable[[bytes], bytes]) -> None:
    names = kinds()
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(altered(name, alter))
        assert set(found()) == set(names)


@pytest.mark.parametrize("name", ["models/tiny/logreg/model.skops", "data/embeddings/tiny.h5", "reports/index.html"])
def test_a_quick_audit_sees_sizes(recorded: Project, name: str) -> None:
    with altered(name, lambda content: content[:-1]):
        assert found(quick=True) in ([name], [Path(name).parent.as_posix()])


@contextmanager
def away(name: str) -> Iterator[None]:
    Path(name).rename("away")
    try:
        yield
    finally:
        Path("away").rename(name)


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(
    "name",
    ["data/raw/red/03.png", "models/tiny/last/model.safetensors", "data/embeddings/tiny.h5", "reports/lineage.json"],
)
def test_a_missing_file_is_found(recorded: Project, name: str, quick: bool) -> None:
    with away(name):
        assert found(quick=quick) == [name]


def test_a_missing_object_of_dvcs_cache_is_found(recorded: Project) -> None:
    (name,) = [name for name in kinds() if ".dir" in name]
    with away(name):
        assert found() == [name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("data/raw/red/new.png", "an image of data/manifest.parquet"),
        ("data/raw/notes.txt", "files"),
        ("models/tiny/logreg/more.skops", "no file"),
        ("predictions/tiny/more/x.parquet", None),
        ("predictions/tiny/old.parquet", None),
        ("reports/more.html", "no file"),
        (".dvc/cache/files/md5/ab/" + "0" * 30, "md5"),
    ],
)
def test_an_extra_file_is_found_and_one_of_an_older_run_is_noted(
    recorded: Project, name: str, expected: str | None
) -> None:
    made = [parent for parent in Path(name).parents if not parent.exists()]
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy("data/raw/red/03.png", name)
    try:
        done = audit(params.load())
    finally:
        Path(name).unlink()
        for folder in made:
            folder.rmdir()
    if expected is None:
        assert all(finding.path == "predictions" for finding in done.findings)
        assert any(f"1 file of runs no longer listed, such as {name}" in note for note in done.notes)
    else:
        assert any(finding.path in name and expected in finding.expected for finding in done.findings), done.findings


def test_two_swapped_files_are_both_found(recorded: Project) -> None:
    pairs = [("data/raw/red/03.png", "data/raw/blue/01.png"),
             ("predictions/tiny/logreg.parquet", "predictions/tiny/last.parquet")]  # fmt: skip
    with ExitStack() as stack:
        for one, other in pairs:
            contents = Path(one).read_bytes(), Path(other).read_bytes()
            stack.enter_context(altered(one, lambda _, new=contents[1]: new))
            stack.enter_context(altered(other, lambda _, new=contents[0]: new))
        assert set(found()) == {name for pair in pairs for name in pair}


def test_a_setting_that_changed_since_the_run_is_named(recorded: Project) -> None:
    with altered("params.yaml", lambda content: content.replace(b"bootstrap: 200", b"bootstrap: 201")):
        assert found() == ["dvc.lock: compare: params: compare"]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("cmd", None, "headswap prepare --force"), ("params", "seed", 1), ("params", "seed", False)],
)
def test_dvc_lock_is_checked_value_by_value(recorded: Project, section: str, key: str | None, value: object) -> None:
    def alter(content: bytes) -> bytes:
        from dvc.utils.serialize import dumps_yaml

        lock = YAML(typ="safe").load(content)
        stage = lock["stages"]["prepare"]
        if key is None:
            stage[section] = value
        else:
            stage[section]["params.yaml"][key] = value
        return dumps_yaml(lock).encode()

    with altered("dvc.lock", alter):
        assert found() == [f"dvc.lock: prepare: {section}" + (f": {key}" if key else "")]


def test_an_unlisted_stage_in_the_lock_is_a_note_whatever_it_says(recorded: Project) -> None:
    def alter(content: bytes) -> bytes:
        from dvc.utils.serialize import dumps_yaml

        lock = YAML(typ="safe").load(content)
        older = [{"path": path, "md5": "0" * 32, "size": 1} for path in ("data/manifest.parquet", "models/tiny/old")]
        lock["stages"]["train@tiny-old"] = {"cmd": "headswap train", "deps": older[:1], "outs": older[1:]}
        return dumps_yaml(lock).encode()

    with altered("dvc.lock", alter):
        done = audit(params.load())
    assert done.findings == []
    assert any("train@tiny-old" in note for note in done.notes)


def test_what_cannot_be_verified_is_a_note_and_no_failure(
    recorded: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["audit"]) == 0
    printed = capsys.readouterr().out
    assert "note: no git commit" in printed
    assert "24 images among them, " in printed
    assert ": nothing was altered" in printed


def test_findings_are_sorted_and_say_expected_and_found(recorded: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with altered("tiny.pth", lambda content: content + b"x"), altered("curves/tiny.json", lambda content: b"{}"):
        assert cli.main(["audit"]) == 1
    lines = capsys.readouterr().err.splitlines()
    starts = [line.split(": expected sha256 ")[0] for line in lines[-3:-1]]
    assert starts == ["headswap audit: curves/tiny.json", "headswap audit: tiny.pth"]
    assert ", found sha256 " in lines[-2]
    assert lines[-1].startswith("headswap audit: 2 findings; what to do: ")


def test_json_is_for_machines(recorded: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with altered("tiny.pth", lambda content: content + b"x"):
        assert cli.main(["audit", "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["altered"] is True
    assert [finding["path"] for finding in content["findings"]] == ["tiny.pth"]
    assert content["images"] == len(manifest.read())


def test_an_audit_writes_nothing(recorded: Project) -> None:
    def listed() -> dict[str, tuple[int, int]]:
        files = (path for path in recorded.root.rglob("*") if path.is_file() and "tmp" not in path.parts)
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    before = listed()
    audit(params.load())
    assert listed() == before
