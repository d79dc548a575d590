"""dvc.lock is what DVC writes, or one line says why not."""

from pathlib import Path

import pytest

from pipeline.core import locks
from pipeline.core.errors import StateError
from tests.conftest import REPOSITORY

MD5 = "0a" * 16
OUT = f"{{path: a, md5: {MD5}, size: 1}}"


def staged(text: str) -> bytes:
    return f"schema: '2.0'\nstages:\n  a: {{cmd: a, {text}}}\n".encode()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"a: 1", b"[]", b"0", b"\xff\xfe\xfd", b"[" * 5000,
        b"stages:", b"stages: []", b"stages: {", b"stages: {a: 1}", b"stages: {1: {cmd: a}}", b"stages: {a: {}}",
        b"stages: !!timestamp x", staged("params: "), staged("params: {params.yaml: }"),
        staged("params: {params.yaml: {a: 2020-01-01}}"), staged("params: {params.yaml: {a: &b [*b]}}"),
        staged("params: {1: {a: 1}}"), staged("params: {params.yaml: {1: 1}}"), staged("outs: {}"), staged("outs: [1]"),
        staged("outs: [{path: a}]"),
        *(staged(f"outs: [{OUT.replace(*change)}]") for change in (
            ("path: a", "path: 1"), (MD5, "123"), (MD5, "../../../etc/passwd"), ("size: 1", "size: a"),
            ("size: 1", "size: true"), ("size: 1", "size: 1, nfiles: a"),
        )),
    ],
)  # fmt: skip
def test_what_dvc_does_not_write_is_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(StateError) as refused:
        locks.parse(content, "the lock")
    assert str(refused.value).startswith("the lock: not what DVC writes (")
    assert len(str(refused.value).splitlines()) == 1


def test_what_dvc_writes_is_read() -> None:
    assert locks.parse((REPOSITORY / "dvc.lock").read_bytes(), "ours")
    assert locks.parse(b"schema: '2.0'\n", "before the first stage") == {}
    lock = locks.parse(b"stages: {a: {cmd: [b, c], outs: [" + OUT.encode() + b"]}}", "of several commands")
    assert lock["a"].outs["a"].size == 1


@pytest.mark.parametrize(("name", "content"), [(".dvc/config", b"[core"), (".dvcignore", b"\xff")])
def test_a_repository_that_dvc_cannot_open_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()
    Path(".git").mkdir()
    Path(name).write_bytes(content)
    with pytest.raises(StateError, match="DVC cannot open this repository"):
        locks.objects_of(tmp_path)


def test_a_path_is_shown_from_the_projects_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locks.shown(tmp_path / "a/b") == locks.shown(Path("a/b")) == "a/b"
    assert locks.shown(Path("/else/where")) == "/else/where"


@pytest.mark.parametrize("content", [b"[1]", b"{}", b"[{}]", b"x", b'[{"md5": "0", "relpath": "a"}]'])
def test_the_files_of_a_folder_are_read_only_from_what_dvc_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(locks, "objects_of", lambda root: tmp_path)
    md5 = locks.hashlib.md5(content).hexdigest() + locks.FOLDER_SUFFIX
    assert locks.folder_files(md5) == {}
    (tmp_path / md5[:2]).mkdir()
    (tmp_path / md5[:2] / md5[2:]).write_bytes(content)
    assert locks.folder_files(md5) == ({"a": "0"} if b"relpath" in content else {})
    (tmp_path / md5[:2] / md5[2:]).write_bytes(content + b" ")
    assert locks.folder_files(md5) == {}
