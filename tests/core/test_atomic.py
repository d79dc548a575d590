import os
from pathlib import Path

import pytest

from pipeline.core import atomic


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic.replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_system_call_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(*{"fsync": ("os.fsync", fail), "replace": ("pathlib.Path.replace", fail)}[call])
    with pytest.raises(OSError, match="No space"):
        atomic.write_text(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "a", {"x": 1, "y": [1.5]})
    atomic.write_json(tmp_path / "b", {"y": [1.5], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json(tmp_path / "a", float("nan"))
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_once_it_is_stale(tmp_path: Path) -> None:
    old, new = tmp_path / ".a.json.1.tmp", tmp_path / ".a.json.2.tmp"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    atomic.write_json(tmp_path / "a.json", {})
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize("call", ["block", "fsync", "replace"])
def test_a_new_name_that_is_not_written_whole_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if call != "block":
        monkeypatch.setattr(*{"fsync": ("os.fsync", fail), "replace": ("pathlib.Path.replace", fail)}[call])
    with pytest.raises(OSError, match="No space"), atomic.creating(tmp_path / "new/file") as temporary:
        temporary.write_text("half")
        fail() if call == "block" else None
    assert not list((tmp_path / "new").iterdir())


def test_a_new_name_is_written_whole_without_a_look_at_what_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "glob", None)
    with atomic.creating(tmp_path / "file") as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("whole")
        assert not (tmp_path / "file").exists()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "whole")]


def test_of_a_listing_those_that_are_there_still_are_looked_at(tmp_path: Path) -> None:
    here, gone = tmp_path / "here", tmp_path / "gone"
    here.write_bytes(b"abc")
    assert [(path, looks.st_size) for path, looks in atomic.still_there([gone, here])] == [(here, 3)]
