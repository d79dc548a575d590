"""Manifests and stamps that some commit put into DVC's cache, and that are not what the pipeline writes."""

import json
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.commands import forget
from pipeline.core import locks
from pipeline.core.errors import StateError
from pipeline.data import manifest
from pipeline.embeddings import history
from pipeline.lineage.audit import objects
from pipeline.lineage.diff import revisions

GOOD = {name: ["a" * 64] for name in manifest.COLUMNS}


def parquet(**columns: Any) -> bytes:
    stream = BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def cut_short(content: bytes) -> bytes:
    return content[:4] + bytes(len(content) - 12) + content[-8:]


MANIFESTS: dict[str, bytes] = {
    "no Parquet": b"x",
    "nothing": b"",
    "cut short": cut_short(parquet(**GOOD)),
    "another table": parquet(a=[1]),
    "numbers": parquet(**{**GOOD, "sha256": [1]}),
    "lists": parquet(**{**GOOD, "sha256": [["a"]]}),
    "an empty cell": parquet(**{**GOOD, "sha256": pa.array([None], pa.string())}),
    "no hash": parquet(**{**GOOD, "sha256": ["../a"]}),
    "no UTF-8": parquet(**{**GOOD, "sha256": pa.array([b"\xff"]).view(pa.string())}),
}
STAMPS: dict[str, bytes] = {
    "no JSON": b"x",
    "a list": b"[]",
    "no facts": b"{}",
    "facts that are none": b'{"facts": 1}',
    "no number": b'{"facts": {"recipe": {"a": NaN}}}',
    "too deep": b"[" * 100_000,
}


@pytest.fixture
def commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bytes], None]:
    """Stand in a repository whose one commit lists a file with some content."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locks, "objects_of", lambda root: tmp_path / "objects")

    def made(path: str, content: bytes) -> None:
        md5 = locks.md5_of(content)
        place = tmp_path / "objects" / md5[:2] / md5[2:]
        place.parent.mkdir(parents=True)
        place.write_bytes(content)
        entry = {"path": path, "md5": md5, "size": len(content)}
        Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"a": {"cmd": "a", "outs": [entry]}}}))
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
        for command in (["init", "-q"], ["add", "dvc.lock"], ["commit", "-qm", "a"]):
            subprocess.run([*git, *command], check=True)

    return made


@pytest.mark.parametrize("content", MANIFESTS.values(), ids=MANIFESTS)
def test_a_malformed_manifest_in_history_is_recognised_by_all_readers(
    commit: Callable[[str, bytes], None], content: bytes
) -> None:
    commit(manifest.MANIFEST.as_posix(), content)
    (why,) = history.needed().unknown.values()
    assert why.startswith("dvc.lock: data/manifest.parquet: not a manifest (")
    found = objects.outputs(["a" * 64])
    assert [one.path for one in found.unknown] == [manifest.MANIFEST.as_posix()]
    assert forget._names_in_history() == {}
    with pytest.raises(StateError, match="data/manifest.parquet of HEAD .*: not a manifest"):
        revisions.at("HEAD").manifest()


@pytest.mark.parametrize("content", STAMPS.values(), ids=STAMPS)
def test_a_malformed_stamp_in_history_is_reported_without_a_traceback(
    commit: Callable[[str, bytes], None], content: bytes
) -> None:
    commit("data/embeddings/tiny.json", content)
    (why,) = history.needed().unknown.values()
    assert why.startswith("dvc.lock: data/embeddings/tiny.json: ")


@pytest.mark.parametrize("name", ["tiny.cost.json", "tiny.skipped.json"])
def test_files_beside_a_stamp_need_no_rows(commit: Callable[[str, bytes], None], name: str) -> None:
    commit(f"data/embeddings/{name}", b"x")
    assert history.needed() == history.Needed()


def test_a_sound_manifest_is_read(commit: Callable[[str, bytes], None]) -> None:
    commit(manifest.MANIFEST.as_posix(), parquet(**GOOD))
    assert history.needed().images == {"a" * 64}
    table = revisions.at("HEAD").manifest()
    assert table is not None
    assert list(table.sha256) == ["a" * 64]


@pytest.mark.parametrize("facts", [1, {"recipe": 1}, {"made_with": []}])
def test_facts_that_cannot_be_compared_are_one_line(commit: Callable[[str, bytes], None], facts: object) -> None:
    commit("data/embeddings/tiny.json", json.dumps({"facts": facts}).encode())
    with pytest.raises(StateError, match="data/embeddings/tiny.json of HEAD .*: not a stamp"):
        revisions.at("HEAD").embedded("tiny")
