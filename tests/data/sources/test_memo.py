"""Files that look as they did are not read again, and no file that may have changed looks so."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from pipeline.core.sections import Data
from pipeline.data import sources
from pipeline.data.sources import contents, folders, memo
from tests.data.sources.conftest import CATS_AND_DOGS


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lay files out, let them settle at once, and return the names of those that are read."""
    for name, content in CATS_AND_DOGS.items():
        Path("raw", name).parent.mkdir(parents=True, exist_ok=True)
        Path("raw", name).write_bytes(content)
    read, real = list[str](), folders._hash
    monkeypatch.setattr(folders, "_hash", lambda name, path: read.append(name) or real(name, path))
    monkeypatch.setattr(memo, "SETTLED_NS", 0)
    return read


def hashed() -> dict[str, str]:
    place = sources.place_of(Data(source="image_folder", path=Path("raw")))
    names = [str(record.path) for record in sources.listed(place)]
    return dict(zip(names, sources.hashed(place, names), strict=True))


EXPECTED = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(CATS_AND_DOGS.items())}


def test_a_second_run_reads_nothing_and_says_the_same(reads: list[str]) -> None:
    assert hashed() == EXPECTED
    assert len(reads) == 24
    assert hashed() == EXPECTED
    assert len(reads) == 24


def test_a_changed_a_moved_and_a_new_file_are_read(reads: list[str]) -> None:
    hashed()
    Path("raw/cat/0.png").write_bytes(b"other")
    Path("raw/cat/1.png").rename("raw/cat/new.png")
    Path("raw/dog/0.png").replace("raw/dog/1.png")
    reads.clear()
    found = hashed()
    assert sorted(reads) == ["cat/0.png", "cat/new.png", "dog/1.png"]
    assert found["cat/new.png"] == EXPECTED["cat/1.png"]
    assert found["dog/1.png"] == EXPECTED["dog/0.png"]


def test_equal_size_and_time_do_not_hide_a_change(reads: list[str]) -> None:
    path = Path("raw/cat/0.png")
    os.utime(path, ns=(10**18, 10**18))
    hashed()
    path.write_bytes(b"CAT 0")
    os.utime(path, ns=(10**18, 10**18))
    assert hashed()["cat/0.png"] == hashlib.sha256(b"CAT 0").hexdigest()


def test_a_file_that_has_just_changed_is_not_remembered(reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo, "SETTLED_NS", 10**10)
    hashed()
    hashed()
    assert len(reads) == 48
    os.utime("raw/cat/0.png", (time.time() + 10**6,) * 2)  # of another clock
    monkeypatch.setattr(memo, "SETTLED_NS", 0)
    hashed()
    reads.clear()
    hashed()
    assert reads == ["cat/0.png"]


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "folder", "another table"])
def test_a_damaged_memo_counts_as_empty(reads: list[str], damage: str) -> None:
    hashed()
    content = memo.MEMO.read_bytes()
    if damage == "folder":
        memo.MEMO.unlink()
        memo.MEMO.mkdir()
        with pytest.raises(OSError, match="directory"):
            hashed()
        return
    if damage == "another table":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"name": [1], "mark": ["x"], "sha256": ["y"]}), memo.MEMO)
    else:
        memo.MEMO.write_bytes({"cut": content[:-20], "noise": os.urandom(500), "empty": b""}[damage])
    assert hashed() == EXPECTED
    assert memo.MEMO.read_bytes() == content


def test_a_killed_run_continues_where_it_stopped(reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_CHUNK", 4)
    monkeypatch.setattr(contents, "SAVE_EVERY", 0)
    real = memo.write
    saved = list[int]()

    def killed(*rows: list[str | None]) -> None:
        if len(saved) == 3:
            raise KeyboardInterrupt
        saved.append(1)
        real(*rows)

    with monkeypatch.context() as patch:
        patch.setattr(memo, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            hashed()
    reads.clear()
    assert hashed() == EXPECTED
    assert len(reads) == 12


def test_what_is_forgotten_leaves_the_memo(reads: list[str]) -> None:
    hashed()
    gone = EXPECTED["cat/0.png"]
    assert memo.forget([gone], dry=True) == 1
    assert memo.forget([gone]) == 1
    assert memo.forget([gone]) == 0
    reads.clear()
    hashed()
    assert reads == ["cat/0.png"]
