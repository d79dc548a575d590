from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline import embeddings, stamps
from pipeline.cost import Cost
from pipeline.embeddings import EmbeddingCache, Embeddings, keys_of
from pipeline.errors import StateError

RECIPE = {"backbone": "tiny", "dtype": "float16"}
KEYS = keys_of(stamps.sha256_bytes(str(n).encode()) for n in range(10))
ROWS = np.arange(40, dtype=np.float16).reshape(10, 4)


def matrix(features: np.ndarray = ROWS) -> Embeddings:
    return Embeddings(features, KEYS[: len(features)], [f"ü/{n}.png" for n in range(len(features))], RECIPE, "f" * 64)


def write(path: Path, content: Embeddings) -> None:
    embeddings.write(path, content)
    stamps.write(path.with_suffix(".json"), stamps.Stamp("embed", stamps.hashes([path]), {}))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@given(hnp.arrays(st.sampled_from([np.float16, np.float32]), hnp.array_shapes(min_dims=2, max_dims=2, max_side=10)))
@settings(max_examples=30)
def test_a_matrix_reads_back_as_written(features: np.ndarray) -> None:
    write(embeddings.matrix_path("tiny"), matrix(features))
    read = embeddings.read("tiny")
    assert read.features.dtype == features.dtype
    np.testing.assert_array_equal(read.features, features)
    np.testing.assert_array_equal(read.sha256, KEYS[: len(features)])
    assert (read.recipe, read.image_id) == (RECIPE, matrix(features).image_id)


def test_the_file_holds_what_others_rely_on() -> None:
    embeddings.write(Path("a.h5"), matrix())
    with h5py.File("a.h5") as file:
        assert file["features"].shape == (10, 4)
        assert (file["sha256"].shape, file["sha256"].dtype) == ((10, 32), np.uint8)
        assert set(file.attrs) == {"schema_version", "recipe", "recipe_sha256", "manifest_sha256"}
        assert file.attrs["recipe_sha256"] == stamps.sha256_bytes(file.attrs["recipe"].encode())


def test_equal_content_is_equal_bytes_a_second_later() -> None:
    import time

    embeddings.write(Path("a.h5"), matrix())
    time.sleep(1.1)  # HDF5 would store times in seconds
    embeddings.write(Path("b.h5"), matrix())
    assert Path("a.h5").read_bytes() == Path("b.h5").read_bytes()


def test_every_flipped_bit_is_refused_before_hdf5_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    path = embeddings.matrix_path("tiny")
    write(path, matrix())
    good = path.read_bytes()
    monkeypatch.setattr(h5py, "File", None)
    for position in range(0, len(good), 97):
        path.write_bytes(good[:position] + bytes([good[position] ^ 4]) + good[position + 1 :])
        with pytest.raises(StateError, match="tiny.h5: sha256: got"):
            embeddings.read("tiny")


def test_a_missing_matrix_says_what_to_run() -> None:
    with pytest.raises(StateError, match="run `dvc repro`"):
        embeddings.read("tiny")


def test_a_full_disk_is_one_line_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Can't decrement id ref count (unable to close file, errno = 28)")

    monkeypatch.setattr(h5py.File, "close", fail)
    with pytest.raises(StateError, match="is the disk full"):
        embeddings.write(Path("out/a.h5"), matrix())
    assert not list(Path("out").iterdir())


class TestCache:
    def test_a_row_comes_back_whoever_opens_the_cache(self) -> None:
        EmbeddingCache(Path("c"), RECIPE).append(KEYS, ROWS, Cost(5.0, 10.0, 10))
        order = [3, 1, 1, 9]
        features, _ = EmbeddingCache(Path("c"), RECIPE).gather(KEYS[order])
        np.testing.assert_array_equal(features, ROWS[order])
        assert features.dtype == np.float16

    def test_only_what_no_shard_holds_is_missing_and_each_content_once(self) -> None:
        cache = EmbeddingCache(Path("c"), RECIPE)
        cache.append(KEYS[:4], ROWS[:4], Cost())
        assert cache.missing(KEYS[[0, 5, 5, 3, 6]]) == [1, 4]

    def test_another_recipe_shares_nothing(self) -> None:
        EmbeddingCache(Path("c"), RECIPE).append(KEYS, ROWS, Cost())
        assert len(EmbeddingCache(Path("c"), {**RECIPE, "dtype": "float32"}).missing(KEYS)) == 10

    def test_the_first_of_two_writers_wins_and_both_shards_stay(self) -> None:
        one, two = EmbeddingCache(Path("c"), RECIPE), EmbeddingCache(Path("c"), RECIPE)
        one.append(KEYS[:6], ROWS[:6], Cost())
        for number in range(8):  # several, for one file name might come after the first's by luck
            two.append(KEYS[4:], ROWS[4:] + 100 + number, Cost())
        features, _ = EmbeddingCache(Path("c"), RECIPE).gather(KEYS)
        np.testing.assert_array_equal(features[:6], ROWS[:6])
        np.testing.assert_array_equal(features[6:], ROWS[6:] + 100)

    def test_cost_counts_in_proportion_to_the_rows_used(self) -> None:
        cache = EmbeddingCache(Path("c"), RECIPE)
        cache.append(KEYS[:8], ROWS[:8], Cost(8.0, 16.0, 8))
        cache.append(KEYS[8:], ROWS[8:], Cost(3.0, 4.0, 2))
        _, cost = cache.gather(KEYS[[0, 1, 1, 8]])
        assert (cost.seconds, cost.cpu_seconds, cost.images) == (2 + 1.5, 4 + 2, 3)

    def test_a_temporary_file_of_a_killed_writer_is_no_shard(self) -> None:
        cache = EmbeddingCache(Path("c"), RECIPE)
        cache.append(KEYS, ROWS, Cost())
        (cache.folder / f".{'0' * 64}.h5.123.tmp").write_bytes(b"half")
        assert EmbeddingCache(Path("c"), RECIPE).missing(KEYS) == []

    @pytest.mark.parametrize("damage", ["flip", "truncate", "foreign"])
    def test_a_damaged_shard_is_named_and_not_parsed(self, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
        cache = EmbeddingCache(Path("c"), RECIPE)
        cache.append(KEYS, ROWS, Cost())
        (shard,) = cache.folder.glob("*.h5")
        good = shard.read_bytes()
        bad = {
            "flip": good[:-9] + bytes([good[-9] ^ 1]) + good[-8:],
            "truncate": good[:-1],
            "foreign": b"\x89HDF\r\n\x1a\n",
        }[damage]
        shard.write_bytes(bad)
        monkeypatch.setattr(h5py, "File", None)
        with pytest.raises(StateError, match=f"{shard.name}: altered"):
            EmbeddingCache(Path("c"), RECIPE)

    def test_a_shard_of_another_recipe_is_refused(self) -> None:
        other = EmbeddingCache(Path("c"), {"backbone": "other"})
        other.append(KEYS, ROWS, Cost())
        mine = EmbeddingCache(Path("c"), RECIPE)
        mine.folder.mkdir()
        (shard,) = other.folder.glob("*.h5")
        shard.rename(mine.folder / shard.name)
        with pytest.raises(StateError, match="another recipe"):
            EmbeddingCache(Path("c"), RECIPE)
