"""A shard is believed only if its bytes are those of its name, and are a shard."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.core import stamps
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.embeddings import shards
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.hdf5 import Array
from pipeline.embeddings.shards import keys_of, read_shard, sha256_of
from tests.embeddings.test_cache import KEYS, RECIPE, ROWS


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def forged(change: Callable[[h5py.File], object]) -> Path:
    """Write a shard of ten rows, change it, and give it the name of its new bytes."""
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS, ROWS, Cost())
    (path,) = cache.folder.glob("*.h5")
    with h5py.File(path, "r+") as file:
        change(file)
    return path.rename(path.with_stem(stamps.sha256_file(path)))


def test_older_shards_without_memory_and_energy_can_be_read() -> None:
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


def test_a_temporary_file_of_a_killed_writer_is_ignored() -> None:
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


def test_keys_that_end_in_zeros_stay_distinct() -> None:
    keys = keys_of(["00" * 32, "00" * 31 + "01", "01" + "00" * 31])
    assert [bytes(one).hex() for one in sha256_of(keys)] == ["00" * 32, "00" * 31 + "01", "01" + "00" * 31]
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(keys[:1], ROWS[:1], Cost())
    assert cache.missing(keys).tolist() == [1, 2]


def test_an_altered_shard_is_not_mapped() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS, ROWS, Cost())
    (path,) = cache.folder.glob("*.h5")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StateError, match="altered since it was written"):
        cache.mapped(KEYS)


def test_a_shard_names_its_worker() -> None:
    cache = EmbeddingCache(Path("c"), RECIPE)
    cache.append(KEYS[:4], ROWS[:4], Cost(), worker="gpu-7 ü")
    cache.append(KEYS[4:], ROWS[4:], Cost())
    assert sorted(read_shard(path).worker for path in cache.folder.glob("*.h5")) == ["", "gpu-7 ü"]


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
