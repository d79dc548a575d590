"""Rows that are sent to other processes."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import heads
from pipeline.cluster import LocalProcess
from pipeline.core.errors import StateError
from pipeline.heads import Rows
from pipeline.heads.rows import packed, unpacked
from pipeline.networks import streaming
from tests.heads.examples import data, selection
from tests.heads.processes import Processes, Wire, matrix_file, rows_of_file
from tests.soak import soak

SEARCHED: list[Any] = [
    ("logreg", {"C": [1e-3, 1.0], "scale": ["none", "l2"]}, False),
    ("random_forest", {"n_estimators": [3, 5], "search": "halving"}, False),
    ("logreg", {"C": [1e-3, 1.0], "search": "validation"}, False),
    *soak([("streaming_linear", {"epochs": 1}, True)]),  # repeated k-fold alone, for each fit takes a second
]


def sent(rows: Rows) -> Rows:
    arrived = pickle.loads(pickle.dumps(rows))
    assert isinstance(arrived, Rows)
    return arrived


@given(st.lists(st.integers(-(2**60), 2**60)))
def test_packed_numbers_are_unpacked_unchanged(numbers: list[int]) -> None:
    assert unpacked(packed(np.array(numbers, dtype=np.int64))).tolist() == numbers


@pytest.mark.parametrize("streams", [False, True])
def test_rows_of_a_file_arrive_as_they_were(tmp_path: Path, streams: bool) -> None:
    rows = rows_of_file(tmp_path, streams=streams)
    chosen = rows[np.array([7, 3, 20])] + rows[np.array([1, 2])]
    arrived = sent(chosen)
    np.testing.assert_array_equal(arrived.X[:], data()[0][[7, 3, 20, 1, 2]])
    for name in ("y", "image", "group"):
        np.testing.assert_array_equal(getattr(arrived, name), getattr(chosen, name))
        assert getattr(arrived, name).dtype == getattr(chosen, name).dtype


def test_rows_of_plain_arrays_arrive_as_they_were() -> None:
    X, y = data()
    np.testing.assert_array_equal(sent(Rows.of(X, y)[np.array([5, 1])]).X, X[[5, 1]])


def test_half_precision_in_a_file_becomes_single_precision_except_for_heads_that_stream(
    tmp_path: Path,
) -> None:
    X = data()[0].astype(np.float16)
    for streams, dtype in ((False, np.float32), (True, np.float16)):
        found = matrix_file(tmp_path / "half.h5", X, streams=streams).chosen(np.array([4, 2]))
        assert found[:].dtype == dtype
        np.testing.assert_array_equal(found[:], X[[4, 2]].astype(dtype))


def sizes(folder: Path, width: int, name: str, entry: dict[str, Any], streams: bool) -> list[int]:
    folder.mkdir()
    rows, wire = rows_of_file(folder, 2000, width, streams=streams), Wire()
    assert rows.X.shape == (2000, width)  # what was read before must not travel either
    heads.fit(name, entry, rows, rows, selection(folds=2, repeats=1), 0, cluster=wire)
    return wire.sizes


def test_the_size_of_a_task_does_not_grow_with_the_width_of_the_matrix(tmp_path: Path) -> None:
    entry = {"shrink_threshold": [None, 0.1]}
    narrow, wide = (sizes(tmp_path / str(width), width, "nearest_mean", entry, False) for width in (256, 512))
    assert max(narrow) < 5_000 < 2000 * 256 * 4 / 100
    assert len(narrow) == 2 * 2 + 2
    np.testing.assert_allclose(narrow, wide, atol=100)


def test_a_streaming_heads_task_holds_no_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "STEPS", 20)
    found = sizes(tmp_path / "streams", 256, "streaming_linear", {"epochs": 1}, True)
    assert max(found) < 5_000


@pytest.mark.parametrize(("name", "entry", "streams"), SEARCHED)
def test_a_search_on_other_processes_finds_the_same(
    tmp_path: Path, name: str, entry: dict[str, Any], streams: bool
) -> None:
    rows = rows_of_file(tmp_path, 90, streams=streams)
    train, validation = rows[np.arange(60)], rows[np.arange(60, 90)]
    here = heads.fit(name, entry, train, validation, selection(2, repeats=1), 0)
    there = heads.fit(name, entry, train, validation, selection(2, repeats=1), 0, cluster=Processes())
    assert there.candidates == here.candidates
    assert there.repeated == here.repeated
    np.testing.assert_array_equal(there.validation, here.validation)


def test_fits_that_do_not_converge_are_counted_wherever_they_run(tmp_path: Path) -> None:
    rows = rows_of_file(tmp_path)
    entry: dict[str, Any] = {"C": [1.0, 2.0], "max_iter": 1}
    counts = [
        heads.fit("logreg", entry, rows, rows, selection(2), 0, cluster=cluster).unconverged
        for cluster in (LocalProcess(), Processes())
    ]
    assert counts[0] == counts[1] > 1


@pytest.mark.parametrize("damage", ["altered", *soak(["missing"])])
def test_a_worker_names_a_file_that_is_missing_or_has_other_bytes(tmp_path: Path, damage: str) -> None:
    rows = rows_of_file(tmp_path)
    path = tmp_path / "made.h5"
    assert rows.X.shape == (60, 6)  # this process has read it before
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(StateError, match=f"^worker on .*: {path}: (sha256: got .* as stamped|cannot be read)"):
        heads.fit("logreg", {"C": [1, 2]}, rows, rows, selection(2), 0, cluster=Processes())


def test_rows_put_below_others_are_of_other_images() -> None:
    X, y = data(n=6)
    views = Rows.of(X, y, np.array([0, 0, 1, 1, 2, 2]))
    assert (views + views).image.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
