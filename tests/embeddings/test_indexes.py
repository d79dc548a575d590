"""An index spares time, and whatever is wrong with it costs nothing else."""

import re
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.core import stamps
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.embeddings import cache as caches
from pipeline.embeddings import indexes, upkeep
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.shards import read_shard, sha256_of
from tests.embeddings.test_cache import KEYS, RECIPE, ROWS, gathered

ROOT = Path("c")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(indexes, "WORTHWHILE", 2)


def opened() -> EmbeddingCache:
    return EmbeddingCache(ROOT, RECIPE)


def fill(*shards: slice) -> None:
    empty = opened()
    for rows in shards:
        n = len(KEYS[rows])
        empty.append(KEYS[rows], ROWS[rows], Cost(1.5 * n, 2.0 * n, n, 100, 3.0 * n, 0.5, n - 1), f"worker {n}")


def index_files() -> list[Path]:
    return sorted(ROOT.rglob(f"*{indexes.SUFFIX}"))


def remove_indexes() -> None:
    for path in index_files():
        path.unlink()


def shards() -> list[Path]:
    return sorted(ROOT.rglob("*.h5"), key=lambda path: read_shard(path).created_ns)


def rename_to_its_hash(path: Path) -> Path:
    return path.rename(path.with_stem(stamps.sha256_file(path)))


def test_an_indexed_cache_is_opened_without_reading_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    fill(slice(0, 3), slice(3, 8))
    remove_indexes()
    read = opened()
    assert len(index_files()) == 1
    with monkeypatch.context() as patch:
        patch.setattr(caches, "read_shard", None)
        indexed = opened()
        assert indexed.missing(KEYS).tolist() == [8, 9]
        assert indexed.cost(KEYS[:5]) == read.cost(KEYS[:5])
        assert indexed.row_shape() == (4,)
        assert indexed.refresh() == []
    np.testing.assert_array_equal(gathered(indexed, KEYS[[7, 0, 4]]), ROWS[[7, 0, 4]])
    np.testing.assert_array_equal(indexed.mapped(KEYS[[7, 0, 4]])[:], ROWS[[7, 0, 4]])


def test_the_oldest_row_of_a_key_counts_also_if_its_shard_is_indexed() -> None:
    for age in range(4):
        EmbeddingCache(ROOT, RECIPE).append(KEYS[:1], ROWS[:1] + age, Cost())
    opened().append(KEYS[:1], ROWS[:1] + 9, Cost())
    np.testing.assert_array_equal(gathered(opened(), KEYS[:1]), ROWS[:1])


def test_a_small_cache_has_no_index() -> None:
    fill(slice(0, 3))
    opened()
    assert index_files() == []


def test_new_shards_are_indexed_when_there_are_enough() -> None:
    fill(slice(0, 1), slice(1, 2))
    opened()
    fill(slice(2, 3))
    opened()
    assert len(index_files()) == 1
    fill(slice(3, 4))
    assert opened().missing(KEYS[:4]).size == 0
    assert len(index_files()) == 2


def test_writers_and_readers_of_shards_write_the_same_index() -> None:
    fill(slice(0, 1), slice(1, 2))
    (path,) = index_files()
    content = path.read_bytes()
    remove_indexes()
    opened()
    assert [path.read_bytes() for path in index_files()] == [content]


def test_an_index_that_repeats_others_is_removed() -> None:
    fill(slice(0, 1), slice(1, 2), slice(2, 3))
    remove_indexes()
    cache = opened()
    known = list(cache._entries.values())
    for part in (known[:2], known[1:]):
        indexes.write(cache.folder, part)
    assert len(index_files()) == 3
    assert opened().missing(KEYS[:3]).size == 0
    assert len(index_files()) < 3


def test_an_entry_of_a_removed_shard_is_ignored_and_leaves_no_trace() -> None:
    fill(slice(0, 3), slice(3, 6))
    opened()
    shards()[0].unlink()
    assert opened().missing(KEYS[:6]).tolist() == [0, 1, 2]
    (path,) = index_files()
    assert not any(sha256.tobytes() in path.read_bytes() for sha256 in sha256_of(KEYS[:3]))
    assert sha256_of(KEYS[3:4]).tobytes() in path.read_bytes()


def test_an_index_is_removed_if_its_shard_goes_while_it_is_written() -> None:
    fill(slice(0, 3), slice(3, 6))
    cache = opened()
    remove_indexes()
    shards()[0].unlink()
    indexes.write(cache.folder, list(cache._entries.values()))
    assert index_files() == []


def store(shards_: bytes, keys: np.ndarray) -> bytes:
    buffer = BytesIO()
    with h5py.File(buffer, "w") as file:
        file["shards"], file["keys"] = np.frombuffer(shards_, np.uint8), keys
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        store(b"[]", np.zeros((0, 34), np.uint8)),
        store(b"{", np.zeros((1, 34), np.uint8)),
        store(b'[{"sha256": 1}]', np.zeros((1, 34), np.uint8)),
        store(b"[" * 100_000, np.zeros((1, 34), np.uint8)),
    ],
)
def test_a_file_that_is_not_an_index_is_removed_and_the_shards_are_read(content: bytes) -> None:
    fill(slice(0, 3))
    path = opened().folder / f"{stamps.sha256_bytes(content)}{indexes.SUFFIX}"
    path.write_bytes(content)
    assert opened().missing(KEYS[:4]).tolist() == [3]
    assert index_files() == []


def test_an_altered_index_is_not_parsed_but_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fill(slice(0, 3), slice(3, 6))
    opened()
    (path,) = index_files()
    good = path.read_bytes()
    for position in range(0, len(good), 97):
        path.write_bytes(good[:position] + bytes([good[position] ^ 4]) + good[position + 1 :])
        with monkeypatch.context() as patch:
            patch.setattr(h5py, "File", None)
            assert indexes.read(path.parent) == {}
        assert opened().missing(KEYS).tolist() == [6, 7, 8, 9]
        assert path.read_bytes() == good


def lie(change: str) -> None:
    """Let the index exchange two keys, or say that a shard has one row more or another's rows."""
    (path,) = index_files()
    with h5py.File(path, "r+") as file:
        if change == "exchange":
            file["keys"][:2] = file["keys"][:2][::-1]
        else:
            keys, text = file["keys"][:], file["shards"][:].tobytes()
            del file["keys"], file["shards"]
            file["keys"] = np.concatenate([keys, sha_and_view(KEYS[9])])
            others, mark, last = text.rpartition(b'{"sha256"')
            last = last.replace(b'"rows":3', b'"rows":4').replace(b'"images":3', b'"images":4')
            file["shards"] = np.frombuffer(others + mark + last, np.uint8)
    rename_to_its_hash(path)


def sha_and_view(key: np.bytes_) -> np.ndarray:
    return np.frombuffer(np.array([key], "S34").tobytes(), np.uint8).reshape(1, 34)


@pytest.mark.parametrize("change", ["exchange", "add"])
def test_a_wrong_index_gives_an_error_with_a_remedy_and_never_a_wrong_row(change: str) -> None:
    fill(slice(0, 3), slice(3, 6))
    opened()
    lie(change)
    wanted = KEYS[:6] if change == "exchange" else KEYS[[0, 9]]
    for use in (lambda cache: gathered(cache, wanted), lambda cache: cache.mapped(wanted)):
        with pytest.raises(StateError, match=rf"other rows than an index says; delete .*\*{indexes.SUFFIX}"):
            use(opened())
    remove_indexes()
    np.testing.assert_array_equal(gathered(opened(), KEYS[:6]), ROWS[:6])


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_the_cache_opens_also_if_no_index_can_be_written(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(slice(0, 3), slice(3, 6))
    remove_indexes()

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Path, "write_bytes", fail)
    assert opened().missing(KEYS[:7]).tolist() == [6]
    assert [path.suffix for path in opened().folder.iterdir() if path.suffix not in (".h5", ".json")] == []


def say(old: str, new: str) -> None:
    """Let the index say something else of its shards."""
    (path,) = index_files()
    with h5py.File(path, "r+") as file:
        text = file["shards"][:].tobytes().decode()
        assert re.search(old, text)
        del file["shards"]
        file["shards"] = np.frombuffer(re.sub(old, new, text).encode(), np.uint8)
    rename_to_its_hash(path)


IMPOSSIBLE = [
    (r'"row_shape":\[\d+\]', '"row_shape":[]'),
    (r'"row_shape":\[\d+\]', '"row_shape":[-1]'),
    (r'"row_shape":\[\d+\]', f'"row_shape":[{10**30}]'),
    (r'"peak_memory":\d+', f'"peak_memory":{10**400}'),
    (r'"seconds":[\d.]+', '"seconds":-1e308'),
    (r'"created_ns":', '"created_ns":-'),
    (r'"sha256":"[0-9a-f]+"', f'"sha256":"{"a" * 64}"'),
]


@pytest.mark.parametrize(("old", "new"), IMPOSSIBLE)
def test_an_index_with_impossible_facts_is_ignored(old: str, new: str) -> None:
    fill(slice(0, 3), slice(3, 6))
    opened()
    say(old, new)
    assert indexes.entries_of(index_files()[0]) == {}
    np.testing.assert_array_equal(gathered(opened(), KEYS[:6]), ROWS[:6])


def test_a_wrong_width_gives_an_error_with_a_remedy() -> None:
    fill(slice(0, 3), slice(3, 6))
    opened()
    say(r'"row_shape":\[\d+\]', '"row_shape":[99]')
    with pytest.raises(StateError, match="other rows than an index says; delete"):
        gathered(opened(), KEYS[:6])


def test_a_stale_index_stays_if_its_replacement_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    fill(slice(0, 3), slice(3, 6), slice(6, 8))
    opened()
    before = index_files()
    shards()[0].unlink()
    with monkeypatch.context() as patch:
        patch.setattr(indexes, "creating", lambda path: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        opened()
    assert index_files() == before
    opened()
    assert index_files() != before


def test_pruning_leaves_no_index_of_removed_shards() -> None:
    fill(slice(0, 3), slice(3, 6))
    opened()
    (stored,) = upkeep.recipes(ROOT)
    upkeep.prune(stored, sha256_of(KEYS[:2]), dry=False)
    assert index_files() == []
    assert opened().missing(KEYS[:6]).tolist() == [2, 3, 4, 5]
