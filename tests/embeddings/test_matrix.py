import contextlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.core import stamps
from pipeline.core.errors import StateError
from pipeline.embeddings import matrix
from pipeline.embeddings.matrix import Block, RowBlocks
from tests.faults import fail_the_nth

RECIPE = {"backbone": "tiny", "dtype": "float16"}
SHA256 = np.random.default_rng(0).integers(0, 256, (10, 32), np.uint8)
ROWS = np.arange(40, dtype=np.float16).reshape(10, 4)
NAMES = [f"ü/{n}.png" for n in range(10)]
PATH = matrix.matrix_path("tiny")

floats = st.sampled_from([np.float16, np.float32])
features_of_any_shape = hnp.arrays(floats, hnp.array_shapes(min_dims=2, max_dims=2, max_side=10))


def rows(features: np.ndarray = ROWS, blocks: Iterator[Block] | None = None) -> RowBlocks:
    whole = [(np.arange(len(features)), features)]
    return RowBlocks(features.shape, features.dtype, RECIPE, whole if blocks is None else blocks)  # type: ignore[arg-type]


def write(content: RowBlocks, path: Path = PATH, augmented: tuple[RowBlocks, np.ndarray] | None = None) -> None:
    n = content.shape[0]
    matrix.write(path, SHA256[:n], NAMES[:n], "f" * 64, content, augmented)
    stamps.write(path.with_suffix(".json"), stamps.Stamp("embed", stamps.hashes([path]), {}))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@given(features_of_any_shape)
@settings(max_examples=30)
def test_a_matrix_reads_back_as_written(features: np.ndarray) -> None:
    write(rows(features))
    read = matrix.read("tiny")
    assert read.features.dtype == features.dtype
    np.testing.assert_array_equal(read.features, features)
    np.testing.assert_array_equal(read.sha256, SHA256[: len(features)])
    assert (read.recipe, list(read.image_id)) == (RECIPE, NAMES[: len(features)])


@given(st.permutations(range(10)), st.lists(st.integers(1, 9), max_size=4))
@settings(max_examples=30)
def test_blocks_in_any_order_and_size_give_the_same_bytes(order: list[int], cuts: list[int]) -> None:
    write(rows())
    whole = PATH.read_bytes()
    parts = np.split(np.array(order), sorted(set(cuts)))
    write(rows(blocks=((part, ROWS[part]) for part in parts)))
    assert PATH.read_bytes() == whole


def test_a_missing_row_is_an_error_and_leaves_the_old_file() -> None:
    write(rows())
    whole = PATH.read_bytes()
    with pytest.raises(StateError, match="1 of 10 rows are missing"):
        write(rows(blocks=iter([(np.arange(9), ROWS[:9])])))
    assert PATH.read_bytes() == whole
    assert sorted(PATH.parent.iterdir()) == [PATH, PATH.with_suffix(".json")][::1]


def test_further_views_are_stored_beside_the_images_rows() -> None:
    views = rows(ROWS[:3] + 1)
    write(rows(), augmented=(views, np.array([4, 4, 7])))
    augmented = matrix.read("tiny").augmented
    assert augmented is not None
    np.testing.assert_array_equal(augmented.features, ROWS[:3] + 1)
    assert augmented.row.tolist() == [4, 4, 7]
    assert augmented.recipe == RECIPE


def test_the_file_holds_what_others_rely_on() -> None:
    write(rows(), augmented=(rows(ROWS[:3]), np.array([4, 4, 7])))
    with h5py.File(PATH) as file:
        np.testing.assert_array_equal(file["features"][:], ROWS)
        assert (file["sha256"].shape, file["sha256"].dtype) == ((10, 32), np.uint8)
        assert [name.decode() for name in file["image_id"]] == NAMES
        assert set(file.attrs) == {"schema_version", "recipe", "recipe_sha256", "manifest_sha256"}
        assert file.attrs["recipe_sha256"] == stamps.sha256_bytes(file.attrs["recipe"].encode())
        assert (file["augmented/features"].shape, file["augmented/row"].shape) == ((3, 4), (3,))


@pytest.mark.parametrize("version", [matrix.SCHEMA_VERSION - 1, matrix.SCHEMA_VERSION + 1])
def test_a_file_of_an_older_or_a_newer_version_is_refused(version: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix, "SCHEMA_VERSION", version)
        write(rows())
    with pytest.raises(StateError, match=f"schema_version: got {version}, expected {matrix.SCHEMA_VERSION}"):
        matrix.read("tiny")


def test_equal_content_is_equal_bytes_a_second_later() -> None:
    import time

    write(rows(), Path("a.h5"))
    time.sleep(1.1)  # HDF5 would store times in seconds
    write(rows(), Path("b.h5"))
    assert Path("a.h5").read_bytes() == Path("b.h5").read_bytes()


def test_every_flipped_bit_is_refused_before_hdf5_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    write(rows())
    good = PATH.read_bytes()
    monkeypatch.setattr(h5py, "File", None)
    for position in range(0, len(good), 97):
        PATH.write_bytes(good[:position] + bytes([good[position] ^ 4]) + good[position + 1 :])
        with pytest.raises(StateError, match="tiny.h5: sha256: got"):
            matrix.read("tiny")


def test_a_missing_matrix_says_what_to_run() -> None:
    with pytest.raises(StateError, match="run `dvc repro`"):
        matrix.read("tiny")


@pytest.mark.parametrize("call", ["h5py.File.close", "os.pwrite"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("errno = 28")])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    call: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(call, fail)
    with pytest.raises(StateError, match="is the disk full"):
        write(rows())
    assert not list(PATH.parent.iterdir())


GONE = SHA256[[0, 4]]


@pytest.mark.parametrize("block", [3, 4096])
def test_forgetting_leaves_the_other_rows_bit_for_bit(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "_BLOCK", block)
    write(rows(), augmented=(rows(ROWS[:3] + 1), np.array([4, 5, 9])))
    before = PATH.read_bytes()
    assert matrix.forget("tiny", GONE, dry=True) == 3
    assert PATH.read_bytes() == before
    assert matrix.forget("tiny", GONE, dry=False) == 3
    left, kept = matrix.read("tiny"), [1, 2, 3, 5, 6, 7, 8, 9]
    np.testing.assert_array_equal(left.features, ROWS[kept])
    np.testing.assert_array_equal(left.sha256, SHA256[kept])
    assert (left.image_id, left.manifest_sha256) == ([NAMES[row] for row in kept], "f" * 64)
    assert left.augmented is not None
    np.testing.assert_array_equal(left.augmented.features, (ROWS[:3] + 1)[1:])
    assert left.augmented.row.tolist() == [3, 7]


def test_forgetting_images_that_a_matrix_lacks_writes_nothing() -> None:
    write(rows())
    before = PATH.stat().st_ino
    assert matrix.forget("tiny", np.zeros((1, 32), np.uint8), dry=False) == 0
    assert PATH.stat().st_ino == before


def test_a_forgotten_image_is_nowhere_in_the_file() -> None:
    write(rows())
    matrix.forget("tiny", GONE, dry=False)
    content = PATH.read_bytes()
    assert not any(sha.tobytes() in content for sha in GONE)
    assert NAMES[4].encode() not in content


def test_forgetting_removes_a_matrix_that_differs_from_its_stamp() -> None:
    write(rows())
    PATH.write_bytes(PATH.read_bytes() + b"x")
    assert matrix.forget("tiny", GONE, dry=True) == 0
    assert PATH.exists()
    assert matrix.forget("tiny", GONE, dry=False) == 0
    assert not list(PATH.parent.iterdir())


def test_whatever_fails_while_forgetting_a_second_time_completes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 20):
        write(rows())
        with monkeypatch.context() as patch:
            failed = fail_the_nth(number, patch)
            with contextlib.suppress(OSError, StateError):
                matrix.forget("tiny", GONE, dry=False)
        matrix.forget("tiny", GONE, dry=False)
        if PATH.exists():
            np.testing.assert_array_equal(matrix.read("tiny").features, ROWS[[1, 2, 3, 5, 6, 7, 8, 9]])
        if not failed:
            assert number > 3
            return
    pytest.fail("it never came to an end")
