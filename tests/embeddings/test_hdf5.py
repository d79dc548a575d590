"""Hostile files whose hash is what it should be: nothing outside is read, nothing is taken for data that is not."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.core import stamps
from pipeline.core.errors import StateError
from pipeline.embeddings import matrix, shards
from tests.conftest import REPOSITORY

RECIPE_SHA256 = "a" * 64
FEATURES = np.zeros((2, 4), np.float16)


def plain(file: h5py.File) -> None:
    file["features"] = FEATURES
    file["sha256"] = np.zeros((2, 32), np.uint8)
    file["view"] = np.zeros(2, np.uint16)
    file["image_id"] = np.array([b"a", b"b"])
    file.attrs.update({"schema_version": 2, "recipe": "{}", "recipe_sha256": RECIPE_SHA256, "manifest_sha256": ""})
    file.attrs.update({"seconds": 0.0, "cpu_seconds": 0.0, "created_ns": 0})


def external_link(file: h5py.File) -> None:
    file["features"] = h5py.ExternalLink("secret.h5", "/features")


def soft_link(file: h5py.File) -> None:
    file["features"] = h5py.SoftLink("/sha256")


def external_storage(file: h5py.File) -> None:
    file.create_dataset("features", (2, 4), np.float16, external=[("secret.bin", 0, 16)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2, 4), np.float16)
    layout[:] = h5py.VirtualSource("secret.h5", "features", (2, 4))
    file.create_virtual_dataset("features", layout)


def shape_bomb(file: h5py.File) -> None:
    file.create_dataset("features", (2, 2**40), np.float16, chunks=(1, 2**20))


def compressed(file: h5py.File) -> None:
    file.create_dataset("features", data=FEATURES, chunks=(1, 4), compression="gzip")


def unallocated(file: h5py.File) -> None:
    file.create_dataset("features", (2, 2**40), np.float16)


def objects(file: h5py.File) -> None:
    file.create_dataset("features", data=["a", "b"], dtype=h5py.string_dtype())


def group(file: h5py.File) -> None:
    file.create_group("features")


def absent(file: h5py.File) -> None:
    del file


HOSTILE = [
    external_link, soft_link, external_storage, virtual, shape_bomb, compressed, unallocated, objects, group, absent,
]  # fmt: skip


def hostile(path: Path, damage: Callable[[h5py.File], None]) -> None:
    np.full(8, 7, np.float16).tofile(path.parent / "secret.bin")
    with h5py.File(path.parent / "secret.h5", "w") as secret:
        secret["features"] = FEATURES + 7
    with h5py.File(path, "w") as file:
        plain(file)
        del file["features"]
        damage(file)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("damage", HOSTILE)
def test_a_shard_that_is_more_than_plain_data_is_refused_by_name(damage: Callable[[h5py.File], None]) -> None:
    folder = Path(RECIPE_SHA256)
    folder.mkdir()
    hostile(folder / "made.h5", damage)
    path = (folder / "made.h5").rename(folder / f"{stamps.sha256_file(folder / 'made.h5')}.h5")
    with pytest.raises(StateError, match=f"{path.name}: /features: .*not read"):
        shards.read_shard(path)


@pytest.mark.parametrize("damage", HOSTILE)
def test_a_matrix_that_is_more_than_plain_data_is_refused_by_name(damage: Callable[[h5py.File], None]) -> None:
    path = matrix.matrix_path("tiny")
    path.parent.mkdir(parents=True)
    hostile(path, damage)
    stamps.write(matrix.stamp_path("tiny"), stamps.Stamp("embed", stamps.hashes([path]), {}))
    with pytest.raises(StateError, match=r"tiny\.h5: /features: .*not read"):
        matrix.read("tiny")


@pytest.mark.parametrize("damage", [external_link, external_storage, virtual])
def test_the_file_that_a_hostile_one_points_to_is_not_even_opened(damage: Callable[[h5py.File], None]) -> None:
    folder = Path(RECIPE_SHA256)
    folder.mkdir()
    hostile(folder / "made.h5", damage)
    for name in ("secret.h5", "secret.bin"):
        (folder / name).unlink()
        os.mkfifo(folder / name)  # whoever opened it would wait for ever
    path = (folder / "made.h5").rename(folder / f"{stamps.sha256_file(folder / 'made.h5')}.h5")
    script = f"from pathlib import Path; from pipeline.embeddings import shards; shards.read_shard(Path('{path}'))"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False,
                          timeout=60)  # fmt: skip
    assert "StateError" in done.stderr


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n" + b"\0" * 100])
def test_a_file_that_is_no_hdf5_is_refused(content: bytes) -> None:
    folder = Path(RECIPE_SHA256)
    folder.mkdir()
    path = folder / f"{stamps.sha256_bytes(content)}.h5"
    path.write_bytes(content)
    with pytest.raises(StateError, match="not an HDF5 file"):
        shards.read_shard(path)


@pytest.mark.parametrize("attribute", ["recipe_sha256", "seconds", "created_ns"])
def test_a_shard_without_an_attribute_is_refused(attribute: str) -> None:
    folder = Path(RECIPE_SHA256)
    folder.mkdir()
    with h5py.File("made.h5", "w") as file:
        plain(file)
        del file.attrs[attribute]
    path = Path("made.h5").rename(folder / f"{stamps.sha256_file(Path('made.h5'))}.h5")
    with pytest.raises(StateError, match=f"attribute {attribute}: missing"):
        shards.read_shard(path)
