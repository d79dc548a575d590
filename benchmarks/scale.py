"""What a million images and more need: planning against a large cache, writing its rows in order, and clusters."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks import engines, memory
from benchmarks.clone import REPOSITORY
from benchmarks.figures import Figure, at_least, at_most
from pipeline.core.cost import Cost
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.shards import Keys, write_shard
from pipeline.networks.frozen_pass import SHARD_ROWS

WIDTH = 1280
ROW_BYTES = 2 * WIDTH


def measure() -> Iterator[Figure]:
    """Measure one thing after the other; each in a folder of its own, which goes whatever happens."""
    yield from _planning()
    yield from _materialising()
    yield from engines.measure()


def _planning(number: int = 10_000_000) -> Iterator[Figure]:
    """Look millions of keys up in a cache that holds 99% of them, before and after an index of it is there."""
    held = number // 100 * 99
    if not _fits(held):
        return
    with tempfile.TemporaryDirectory() as folder:
        _fill(Path(folder), memory.keys(number)[:held], SHARD_ROWS)
        first, _ = _plan(folder, number, number - held)
        took, peak = _plan(folder, number, number - held)
    what = f"planning {number:,} keys, 99% of them in the cache"
    yield Figure(f"{what}, where no index of its shards is there yet", first, "s")
    yield at_most(what, took, "s", 60)
    yield at_most(f"{what}, peak memory", peak / 1000, "GB", 4)


def _plan(folder: str, number: int, expected: int) -> tuple[float, float]:
    """Return the seconds it took, and the megabytes at most."""
    said, peak = _measured("plan", folder, str(number))
    took, missing = said.split()
    if int(missing) != expected:
        raise AssertionError(f"missing: got {missing}, expected {expected}")
    return float(took), peak


def _materialising(number: int = 1_000_000, shard_rows: int = 4000) -> Iterator[Figure]:
    """Write the rows of some shards as a matrix, in a random order, and copy the shards to compare."""
    if not _fits(3 * number):
        return
    with tempfile.TemporaryDirectory() as folder:
        _fill(Path(folder), memory.keys(number), shard_rows)
        said, peak = _measured("materialise_and_copy", folder, str(number), str(WIDTH))
    ours, copy = map(float, said.split())
    what = f"materialising {number:,} x {WIDTH:,} rows of {number // shard_rows} shards in random order"
    yield at_least(f"{what}, of a copy's speed, both from a cold disk ({ours:.1f} s)", copy / ours, "x", 0.5)
    yield at_most(f"{what}, peak memory", peak / 1000, "GB", 1.5)


def _fits(rows: int) -> bool:
    """Return whether so many rows and some spare gigabytes fit on the disk."""
    return shutil.disk_usage(tempfile.gettempdir()).free > rows * ROW_BYTES + 5e9


def _fill(root: Path, keys: Keys, shard_rows: int) -> None:
    """Write shards of rows under the keys; all hold the same features, yet no two are the same file."""
    folder = EmbeddingCache(root, {"backbone": "bench"}).folder
    features = np.random.default_rng(0).random((shard_rows, WIDTH)).astype(np.float16)

    def write(first: int) -> None:
        part = keys[first : first + shard_rows]
        write_shard(folder, part, features[: len(part)], Cost(1.0, 1.0), first)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(write, range(0, len(keys), shard_rows)):
            pass


def _measured(*arguments: str) -> tuple[str, float]:
    """Return what a process of its own printed, and the megabytes that it needed at most."""
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    *said, peak = subprocess.check_output(command, env=environment, text=True).splitlines()
    return said[-1], float(peak)
