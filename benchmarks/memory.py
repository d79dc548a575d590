"""Peak memory of one piece of work in a process of its own: prints megabytes."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.figures import seconds
from pipeline import cli, heads
from pipeline.data import manifest
from pipeline.data.manifest import Manifest
from pipeline.embeddings import matrix
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.mapped import MappedRows
from pipeline.embeddings.matrix import RowBlocks
from pipeline.embeddings.shards import Keys, sha256_of
from pipeline.quality import signatures
from pipeline.quality.checks import CHECKS
from pipeline.quality.findings import Material


def keys(number: int) -> Keys:
    """Make as many distinct keys, the same in every process."""
    raw = np.random.default_rng(0).integers(0, 256, (number, 34), dtype=np.uint8)
    raw[:, 32:] = 0  # view 0
    return raw.reshape(-1).view("S34")


def embed(*arguments: str) -> None:
    """Run `headswap embed` in the current folder."""
    if status := cli.main(["embed", *arguments]):
        sys.exit(status)


def materialise(folder: str, number: str, width: str) -> None:
    """Write a matrix of rows that the cache holds, in an order of its own."""
    _materialising(Path(folder), int(number), int(width))()


def materialise_and_copy(folder: str, number: str, width: str) -> None:
    """Do as `materialise`, and copy the shards into one file, in turns; print the least seconds of each.

    Before each the shards are dropped from the system's cache, and both end with what they wrote on the disk.
    """
    shards, materialise = sorted(Path(folder).glob("*/*.h5")), _materialising(Path(folder), int(number), int(width))
    ours, copies = [], []
    for _ in range(4):
        _drop_from_cache(shards)
        copies.append(seconds(lambda: _copy(shards, Path(folder) / "copy")))
        _drop_from_cache(shards)
        ours.append(seconds(materialise))
    sys.stdout.write(f"{min(ours):.2f} {min(copies):.2f}")


def _materialising(folder: Path, number: int, width: int) -> Callable[[], None]:
    """Return what writes a matrix of rows that the cache holds, in an order of its own."""
    wanted = np.random.default_rng(1).permutation(keys(number))
    cache = EmbeddingCache(folder, {"backbone": "bench"})
    names = [f"{place:08}.png" for place in range(number)]

    def write() -> None:
        rows = RowBlocks((number, width), np.float16, cache.recipe, cache.blocks(wanted))
        matrix.write(folder / "matrix.h5", sha256_of(wanted), names, "", rows)

    return write


def _drop_from_cache(paths: Sequence[Path]) -> None:
    os.sync()
    for path in paths:
        with path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _copy(paths: Sequence[Path], to: Path) -> None:
    with to.open("wb") as out:
        for path in paths:
            with path.open("rb") as stream:
                shutil.copyfileobj(stream, out)
        out.flush()
        os.fsync(out.fileno())


def plan(folder: str, number: str) -> None:
    """Open a cache and look up which of some keys it lacks; print the seconds and how many."""
    wanted = np.random.default_rng(1).permutation(keys(int(number)))
    start = time.perf_counter()
    missing = EmbeddingCache(Path(folder), {"backbone": "bench"}).missing(wanted)
    sys.stdout.write(f"{time.perf_counter() - start:.2f} {len(missing)}")


def stream(kind: str, folder: str, rows: str, judged: str) -> None:
    """Train a streaming head on the first rows of a stored matrix; print its accuracy on the last ones."""
    y, width = np.load(Path(folder) / "y.npy"), int(np.load(Path(folder) / "width.npy"))
    mapped = np.asarray(np.memmap(Path(folder) / "X", np.float16, "r", shape=(len(y), width)))
    head = heads.HEADS[kind]().fit(MappedRows([mapped], np.arange(int(rows))), y[: int(rows)])
    last = np.arange(len(y) - int(judged), len(y))
    sys.stdout.write(f"{(head.predict(MappedRows([mapped], last)) == y[last]).mean()}\n")


def quality(number: str) -> None:
    """Run every check on synthetic images: clouds of 20 classes, and pictures like clouds; print seconds by check."""
    drawing, images = np.random.default_rng(0), int(number)
    target = np.sort(drawing.integers(0, 20, images))
    centres = drawing.normal(size=(20, 1280)).astype(np.float16)
    X = np.empty((images, 1280), np.float16)
    for start in range(0, images, 5000):
        noise = drawing.standard_normal((min(5000, images - start), 1280), np.float32)
        X[start : start + 5000] = centres[target[start : start + 5000]] + noise.astype(np.float16)
    names = [f"{place:08}.png" for place in range(images)]
    label, split = [f"class {one:02}" for one in target], drawing.choice(manifest.SPLITS, images).tolist()
    table = Manifest(names, names, [f"{place:064x}" for place in range(images)], label, [None] * images, split)
    material = Material(table, np.arange(images), X, signatures.parts(_clouds(drawing, images)), 0.96, 0)
    took = dict[str, float]()
    for name, check in CHECKS.items():
        begun = time.perf_counter()
        check.run(material)
        took[name] = round(time.perf_counter() - begun, 1)
    sys.stdout.write(json.dumps(took))


def _clouds(drawing: np.random.Generator, images: int) -> npt.NDArray[np.uint8]:
    """Return signatures of random pictures whose amplitudes fall with frequency as photographs' do."""
    side = signatures.SIDE
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)) + 1 / side
    found = np.full((images, side * side + 2 * signatures.COLOURS**2 + 1), 128, np.uint8)
    for start in range(0, images, 5000):
        white = np.fft.rfft2(drawing.standard_normal((min(5000, images - start), side, side), np.float32))
        cloud = np.fft.irfft2(white / frequency, (side, side))
        cloud = cloud / cloud.std(axis=(1, 2), keepdims=True) * 50 + 128
        found[start : start + 5000, : side * side] = np.clip(cloud, 0, 255).reshape(len(cloud), -1)
    return found


def peak() -> float:
    """Return this process's peak in MB; `ru_maxrss` would tell that of the process it was forked from, if larger."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


if __name__ == "__main__":
    work: dict[str, Callable[..., None]] = {
        "embed": embed,
        "materialise": materialise,
        "materialise_and_copy": materialise_and_copy,
        "plan": plan,
        "stream": stream,
        "quality": quality,
    }
    work[sys.argv[1]](*sys.argv[2:])
    sys.stdout.write(f"\n{peak():.1f}")
