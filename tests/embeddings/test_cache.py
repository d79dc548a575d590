import resource
import threading
from pathlib import Path

import numpy as np
import pytest

from pipeline.core import stamps
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.embeddings import cache as caches
from pipeline.embeddings.cache import EmbeddingCache, Floats, NewShard
from pipeline.embeddings.shards import Keys, Shard, keys_of, read_shard

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


def test_a_row_comes_back_from_a_newly_opened_cache() -> None:
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


def test_the_time_after_the_first_batch_counts_apart_and_in_proportion() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS[:8], ROWS[:8], Cost(90.0, 90.0, 8, running_seconds=8.0, running_images=4))
    cache.append(KEYS[8:], ROWS[8:], Cost(50.0, 50.0, 2))  # one batch alone says nothing of the pace
    cost = EmbeddingCache(Path("c"), RECIPE).cost(KEYS[[0, 1, 8]])
    assert (cost.running_seconds, cost.running_images) == (2.0, 1.0)


def test_energy_counts_in_proportion_and_the_larger_peak_memory_in_full() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS[:8], ROWS[:8], Cost(8.0, 16.0, 8, peak_memory=100, joules=80.0))
    cache.append(KEYS[8:], ROWS[8:], Cost(3.0, 4.0, 2, peak_memory=300, joules=40.0))
    again = EmbeddingCache(Path("c"), RECIPE)
    both, first = again.cost(KEYS[[0, 1, 8]]), again.cost(KEYS[:2])
    assert (both.joules, both.peak_memory) == (20 + 20, 300)
    assert (first.joules, first.peak_memory) == (20, 100)


def test_rows_of_a_removed_shard_are_missing_after_a_refresh() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS[:4], ROWS[:4], Cost())
    assert cache.missing(KEYS[:4]).size == 0
    next(cache.folder.glob("*.h5")).unlink()
    assert cache.refresh() == []
    assert cache.missing(KEYS[:4]).tolist() == [0, 1, 2, 3]


def test_a_view_is_a_row_of_its_own() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    sha256 = [stamps.sha256_bytes(b"one")] * 3
    keys = keys_of(sha256, [0, 1, 256])
    cache.append(keys[:2], ROWS[:2], Cost())
    again = EmbeddingCache(Path("c"), RECIPE)
    assert again.missing(keys).tolist() == [2]
    np.testing.assert_array_equal(gathered(again, keys[[1, 0]]), ROWS[[1, 0]])


def test_a_missing_row_is_an_error_and_not_a_zero() -> None:
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


def test_mapped_rows_of_any_shape_are_read_on_request() -> None:
    cache, rows = EmbeddingCache(Path("c"), RECIPE), np.arange(240, dtype=np.float16).reshape(10, 2, 3, 4)
    cache.append(KEYS[:4], rows[:4], Cost())
    cache.append(KEYS[4:], rows[4:], Cost())
    order = np.array([7, 1, 1, 9])
    stored = EmbeddingCache(Path("c"), RECIPE).mapped(KEYS[order])
    assert stored.shape == (4, 2, 3, 4)
    np.testing.assert_array_equal(stored[np.array([3, 0, 1])], rows[order][[3, 0, 1]])


def test_a_cache_with_more_shards_than_the_limit_of_open_files_can_be_mapped(tmp_path: Path) -> None:
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


def test_shards_of_other_writers_are_reported_once_with_cost_and_worker() -> None:
    mine, one, two = (EmbeddingCache(Path("c"), RECIPE) for _ in range(3))
    mine.append(KEYS[:1], ROWS[:1], Cost())
    one.append(KEYS[1:4], ROWS[1:4], Cost(3.0, 4.0), "one")
    two.append(KEYS[4:6], ROWS[4:6], Cost(5.0, 6.0), "two")
    assert sorted(mine.refresh()) == [NewShard(2, Cost(5.0, 6.0, 2), "two"), NewShard(3, Cost(3.0, 4.0, 3), "one")]
    assert mine.refresh() == []
    assert mine.missing(KEYS).tolist() == [6, 7, 8, 9]
    np.testing.assert_array_equal(gathered(mine, KEYS[:6]), ROWS[:6])


def test_a_shard_is_read_once_however_often_the_cache_is_refreshed(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_merge_by_another_process_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_rows_of_vanished_shards_are_missing_after_a_refresh() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS[:3], ROWS[:3], Cost())
    for path in cache.folder.glob("*.h5"):
        path.unlink()
    assert cache.refresh() == []
    assert cache.missing(KEYS[:3]).tolist() == [0, 1, 2]


def test_an_image_of_many_shards_is_found_in_each_order() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    for row in range(10):
        cache.append(KEYS[[row]], ROWS[[row]], Cost())
    order = np.random.default_rng(0).permutation(10)
    np.testing.assert_array_equal(gathered(EmbeddingCache(Path("c"), RECIPE), KEYS[order]), ROWS[order])
