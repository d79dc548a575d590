import resource
import threading
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.core import stamps
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.embeddings import cache as caches
from pipeline.embeddings import shards
from pipeline.embeddings.cache import EmbeddingCache, Floats, NewShard
from pipeline.embeddings.hdf5 import Array
from pipeline.embeddings.shards import Keys, Shard, keys_of, read_shard, sha256_of

RECIPE = {"backbone": "tiny", "dtype": "float16"}
KEYS = keys_of(stamps.sha256_bytes(str(n).encode()) for n in range(10))
ROWS = np.arange(40, dtype=np.float16).reshape(10, 4)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def gathered(cache: EmbeddingCache, keys: Keys) -> Floats:
    rows = np.empty((len(keys), *cache.row_shape()), np.float16)
    for positions, features in cache.blocks(keys):
        rows[positions] = features
    return rows


def test_a_row_comes_back_whoever_opens_the_cache() -> None:
    EmbeddingCache(Path("c"), RECIPE).append(KEYS, ROWS, Cost(5.0, 10.0, 10))
    order = [3, 1, 1, 9]
    np.testing.assert_array_equal(gathered(EmbeddingCache(Path("c"), RECIPE), KEYS[order]), ROWS[order])


def test_only_what_no_shard_holds_is_missing_and_each_content_once() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS[:4], ROWS[:4], Cost())
    assert cache.missing(KEYS[[0, 5, 5, 3, 6]]).tolist() == [1, 4]


def test_another_recipe_shares_nothing() -> None:
    EmbeddingCache(Path("c"), RECIPE).append(KEYS, ROWS, Cost())
    assert len(EmbeddingCache(Path("c"), {**RECIPE, "dtype": "float32"}).missing(KEYS)) == 10


def test_the_first_of_two_writers_wins_and_both_shards_stay() -> None:
    one, two = EmbeddingCache(Path("c"), RECIPE), EmbeddingCache(Path("c"), RECIPE)
    one.append(KEYS[:6], ROWS[:6], Cost())
    for number in range(8):  # several, for one file name might come after the first's by luck
        two.append(KEYS[4:], ROWS[4:] + 100 + number, Cost())
    features = gathered(EmbeddingCache(Path("c"), RECIPE), KEYS)
    np.testing.assert_array_equal(features[:6], ROWS[:6])
    np.testing.assert_array_equal(features[6:], ROWS[6:] + 100)


def test_cost_counts_in_proportion_to_the_rows_used() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS[:8], ROWS[:8], Cost(8.0, 16.0, 8))
    cache.append(KEYS[8:], ROWS[8:], Cost(3.0, 4.0, 2))
    cost = cache.cost(KEYS[[0, 1, 1, 8]])
    assert (cost.seconds, cost.cpu_seconds, cost.images) == (2 + 1.5, 4 + 2, 3)


def test_the_pace_of_a_pass_that_runs_is_kept_apart_and_in_proportion() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS[:8], ROWS[:8], Cost(90.0, 90.0, 8, running_seconds=8.0, running_images=4))
    cache.append(KEYS[8:], ROWS[8:], Cost(50.0, 50.0, 2))  # one batch alone says nothing of the pace
    cost = EmbeddingCache(Path("c"), RECIPE).cost(KEYS[[0, 1, 8]])
    assert (cost.running_seconds, cost.running_images) == (2.0, 1.0)


def test_energy_counts_in_proportion_and_the_larger_memory_whole() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS[:8], ROWS[:8], Cost(8.0, 16.0, 8, peak_memory=100, joules=80.0))
    cache.append(KEYS[8:], ROWS[8:], Cost(3.0, 4.0, 2, peak_memory=300, joules=40.0))
    again = EmbeddingCache(Path("c"), RECIPE)
    both, first = again.cost(KEYS[[0, 1, 8]]), again.cost(KEYS[:2])
    assert (both.joules, both.peak_memory) == (20 + 20, 300)
    assert (first.joules, first.peak_memory) == (20, 100)


def test_older_shards_that_say_nothing_of_memory_and_energy_are_read() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS[:5], ROWS[:5], Cost(5.0, 10.0, 5, peak_memory=100, joules=1.0))
    (path,) = cache.folder.glob("*.h5")
    with h5py.File(path, "r+") as file:
        del file.attrs["peak_memory"], file.attrs["joules"]
    path.rename(path.with_stem(stamps.sha256_file(path)))
    cache = EmbeddingCache(Path("c"), RECIPE)
    assert cache.cost(KEYS[:5]) == Cost(5.0, 10.0, 5)
    cache.append(KEYS[5:], ROWS[5:], Cost(5.0, 10.0, 5, peak_memory=100, joules=1.0))
    assert cache.cost(KEYS) == Cost(10.0, 20.0, 10, peak_memory=100)


def test_a_temporary_file_of_a_killed_writer_is_no_shard() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS, ROWS, Cost())
    (cache.folder / f".{'0' * 64}.h5.123.tmp").write_bytes(b"half")
    assert EmbeddingCache(Path("c"), RECIPE).missing(KEYS).size == 0


@pytest.mark.parametrize("damage", ["flip", "truncate", "foreign"])
def test_a_damaged_shard_is_named_and_not_parsed(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sha256", np.zeros((10, 32), np.int64)),
        ("view", np.full(10, np.nan)),
        ("view", np.array([b"1"] * 10)),
        ("features", np.full((10, 3), b"1")),
        ("features", np.zeros((9, 3), np.float16)),
    ],
)
def test_a_shard_of_other_types_or_sizes_is_refused_by_name(name: str, values: Array) -> None:
    path = forged(lambda file: (file.pop(name), file.create_dataset(name, data=values)))
    with pytest.raises(StateError, match=f"{path.name}: sha256, view and features do not belong together; delete it"):
        EmbeddingCache(Path("c"), RECIPE)
    with pytest.raises(StateError, match="do not belong together"):
        shards.map_shard(path)


@pytest.mark.parametrize("name", ["created_ns", "seconds", "peak_memory"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, "1"])
def test_a_shard_with_an_impossible_number_is_refused_by_name(name: str, value: float | str) -> None:
    path = forged(lambda file: file.attrs.__setitem__(name, value))
    with pytest.raises(StateError, match=f"{path.name}: attribute {name}: missing, or no number from 0"):
        EmbeddingCache(Path("c"), RECIPE)


def forged(change: Callable[[h5py.File], object]) -> Path:
    """Write a shard of ten rows, change it, and give it the name of its new bytes."""
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS, ROWS, Cost())
    (path,) = cache.folder.glob("*.h5")
    with h5py.File(path, "r+") as file:
        change(file)
    return path.rename(path.with_stem(stamps.sha256_file(path)))


def test_rows_whose_shard_is_gone_are_missing_again_after_a_look() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS[:4], ROWS[:4], Cost())
    assert cache.missing(KEYS[:4]).size == 0
    next(cache.folder.glob("*.h5")).unlink()
    assert cache.refresh() == []
    assert cache.missing(KEYS[:4]).tolist() == [0, 1, 2, 3]


def test_a_shard_of_another_recipe_is_refused() -> None:
    other = EmbeddingCache(Path("c"), {"backbone": "other"})
    other.append(KEYS, ROWS, Cost())
    mine = EmbeddingCache(Path("c"), RECIPE)
    mine.folder.mkdir()
    (shard,) = other.folder.glob("*.h5")
    shard.rename(mine.folder / shard.name)
    with pytest.raises(StateError, match="another recipe"):
        EmbeddingCache(Path("c"), RECIPE)


def test_swapped_shards_are_refused() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS[:5], ROWS[:5], Cost())
    cache.append(KEYS[5:], ROWS[5:], Cost())
    one, two = cache.folder.glob("*.h5")
    one.rename("spare")
    two.rename(one)
    Path("spare").rename(two)
    with pytest.raises(StateError, match="altered"):
        EmbeddingCache(Path("c"), RECIPE)


def test_a_view_is_a_row_of_its_own() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    sha256 = [stamps.sha256_bytes(b"one")] * 3
    keys = keys_of(sha256, [0, 1, 256])
    cache.append(keys[:2], ROWS[:2], Cost())
    again = EmbeddingCache(Path("c"), RECIPE)
    assert again.missing(keys).tolist() == [2]
    np.testing.assert_array_equal(gathered(again, keys[[1, 0]]), ROWS[[1, 0]])


def test_keys_that_end_in_zeros_are_told_apart() -> None:
    keys = keys_of(["00" * 32, "00" * 31 + "01", "01" + "00" * 31])
    assert [bytes(one).hex() for one in sha256_of(keys)] == ["00" * 32, "00" * 31 + "01", "01" + "00" * 31]
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(keys[:1], ROWS[:1], Cost())
    assert cache.missing(keys).tolist() == [1, 2]


def test_a_row_that_is_not_there_is_an_error_and_not_a_zero() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS[:9], ROWS[:9], Cost())
    with pytest.raises(StateError, match="1 rows are not in the cache"):
        gathered(cache, KEYS)


def test_many_writers_lose_nothing() -> None:
    def add(number: int) -> None:
        own = EmbeddingCache(Path("c"), RECIPE)
        for row in range(10):
            own.append(KEYS[[row]], ROWS[[row]], Cost(float(number)))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache = EmbeddingCache(Path("c"), RECIPE)
    np.testing.assert_array_equal(gathered(cache, KEYS), ROWS)
    assert len(list(cache.folder.glob("*.h5"))) == 40


def test_stored_rows_of_any_shape_are_read_from_their_shards_when_asked_for() -> None:
    cache, rows = EmbeddingCache(Path("c"), RECIPE), np.arange(240, dtype=np.float16).reshape(10, 2, 3, 4)
    cache.append(KEYS[:4], rows[:4], Cost())
    cache.append(KEYS[4:], rows[4:], Cost())
    order = np.array([7, 1, 1, 9])
    stored = EmbeddingCache(Path("c"), RECIPE).mapped(KEYS[order])
    assert stored.shape == (4, 2, 3, 4)
    np.testing.assert_array_equal(stored[np.array([3, 0, 1])], rows[order][[3, 0, 1]])


def test_an_altered_shard_is_not_mapped() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS, ROWS, Cost())
    (path,) = cache.folder.glob("*.h5")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StateError, match="altered since it was written"):
        cache.mapped(KEYS)


def test_a_cache_of_more_shards_than_files_may_be_open_is_mapped_all_the_same(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        cache, keys = EmbeddingCache(tmp_path, {}), keys_of(f"{number:064x}" for number in range(100))
        for number in range(100):
            cache.append(keys[number : number + 1], np.full((1, 2), number, np.float32), Cost())
        stored = cache.mapped(keys)
        np.testing.assert_array_equal(stored[np.array([0, 99])], [[0, 0], [99, 99]])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_computed_a_shard_is_kept_in_it() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS[:4], ROWS[:4], Cost(), worker="gpu-7 ü")
    cache.append(KEYS[4:], ROWS[4:], Cost())
    assert sorted(read_shard(path).worker for path in cache.folder.glob("*.h5")) == ["", "gpu-7 ü"]


def test_what_others_added_is_told_once_with_its_cost_and_worker() -> None:
    mine, one, two = (EmbeddingCache(Path("c"), RECIPE) for _ in range(3))
    mine.append(KEYS[:1], ROWS[:1], Cost())
    one.append(KEYS[1:4], ROWS[1:4], Cost(3.0, 4.0), "one")
    two.append(KEYS[4:6], ROWS[4:6], Cost(5.0, 6.0), "two")
    assert sorted(mine.refresh()) == [NewShard(2, Cost(5.0, 6.0, 2), "two"), NewShard(3, Cost(3.0, 4.0, 3), "one")]
    assert mine.refresh() == []
    assert mine.missing(KEYS).tolist() == [6, 7, 8, 9]
    np.testing.assert_array_equal(gathered(mine, KEYS[:6]), ROWS[:6])


def test_a_shard_is_read_once_however_often_one_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = (EmbeddingCache(Path("c"), RECIPE) for _ in range(2))
    read: list[Path] = []

    def counting(path: Path) -> Shard:
        read.append(path)
        return read_shard(path)

    monkeypatch.setattr(caches, "read_shard", counting)
    for row in range(3):
        other.append(KEYS[[row]], ROWS[[row]], Cost())
        mine.refresh()
    assert len(read) == len(set(read)) == 3


def test_shards_that_another_merges_while_they_are_read_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = (EmbeddingCache(Path("c"), RECIPE) for _ in range(2))
    other.append(KEYS[:3], ROWS[:3], Cost())
    (old,) = other.folder.glob("*.h5")

    def merging(path: Path) -> Shard:
        if path == old:
            other.append(KEYS[:4], ROWS[:4], Cost())
            old.unlink()
        return read_shard(path)

    monkeypatch.setattr(caches, "read_shard", merging)
    assert [added.rows for added in mine.refresh()] == [4]
    np.testing.assert_array_equal(gathered(mine, KEYS[:4]), ROWS[:4])


def test_rows_of_a_shard_that_vanished_are_missing_after_another_look() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS[:3], ROWS[:3], Cost())
    for path in cache.folder.glob("*.h5"):
        path.unlink()
    assert cache.refresh() == []
    assert cache.missing(KEYS[:3]).tolist() == [0, 1, 2]


@pytest.mark.parametrize("damage", ["flip", "dangle"])
def test_a_damaged_new_shard_is_named(damage: str) -> None:
    mine, other = (EmbeddingCache(Path("c"), RECIPE) for _ in range(2))
    other.append(KEYS, ROWS, Cost())
    (path,) = other.folder.glob("*.h5")
    if damage == "flip":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    else:
        path.unlink()
        path.symlink_to("nowhere")
    with pytest.raises(StateError, match=path.name):
        mine.refresh()


def test_an_image_of_many_shards_is_found_in_each_order() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    for row in range(10):
        cache.append(KEYS[[row]], ROWS[[row]], Cost())
    order = np.random.default_rng(0).permutation(10)
    np.testing.assert_array_equal(gathered(EmbeddingCache(Path("c"), RECIPE), KEYS[order]), ROWS[order])
