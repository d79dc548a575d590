import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import StateError
from pipeline.embeddings import row_writer

ROWS = np.arange(40, dtype=np.float32).reshape(10, 4)
OFFSET = 7


def put(path: Path, parts: list[np.ndarray], window: int, staged: int) -> bytes:
    """Write rows into a file that has bytes before and after them; return its content."""
    path.write_bytes(b"x" * OFFSET + bytes(10 * 4 * 2) + b"y" * OFFSET)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_writer, "_WINDOW", window)
        patch.setattr(row_writer, "_STAGED", staged)
        row_writer.write_rows(path, OFFSET, (10, 4), np.float16, ((part, ROWS[part]) for part in parts))
    return path.read_bytes()


@given(st.permutations(range(10)), st.lists(st.integers(1, 9), max_size=4), st.integers(1, 100), st.integers(1, 200))
@settings(max_examples=100)
def test_rows_in_any_order_get_to_their_positions_however_small_the_windows(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], cuts: list[int], window: int, staged: int
) -> None:
    parts = np.split(np.array(order), sorted(set(cuts)))
    content = put(tmp_path_factory.mktemp("put") / "file", parts, window, staged)
    assert content == b"x" * OFFSET + ROWS.astype(np.float16).tobytes() + b"y" * OFFSET


@pytest.mark.parametrize("left_out", [0, 4, 9])
def test_missing_rows_are_counted(left_out: int, tmp_path: Path) -> None:
    part = np.delete(np.arange(10)[::-1], left_out)
    with pytest.raises(StateError, match="1 of 10 rows are missing"):
        put(tmp_path / "file", [part], 16, 1)


def test_rows_that_come_in_order_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    real = os.pwrite

    def counting(file: int, content: memoryview, offset: int) -> int:
        written.append(len(content))
        return real(file, content, offset)

    monkeypatch.setattr(os, "pwrite", counting)
    put(tmp_path / "file", [np.arange(6), np.arange(6, 10)], 24, 1)
    assert sum(written) == 10 * 4 * 2


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, content, offset: real(file, content[:3], offset))
    content = put(tmp_path / "file", [np.arange(10)[::-1]], 24, 50)
    assert content[OFFSET:-OFFSET] == ROWS.astype(np.float16).tobytes()
