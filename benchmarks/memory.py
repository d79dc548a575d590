"""Peak memory of one piece of work in a process of its own: prints megabytes."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline import cli, heads
from pipeline.embeddings import matrix
from pipeline.embeddings.cache import EmbeddingCache, Keys, sha256_of
from pipeline.embeddings.matrix import Rows
from pipeline.embeddings.stored import Stored


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
    wanted = np.random.default_rng(1).permutation(keys(int(number)))
    cache = EmbeddingCache(Path(folder), {"backbone": "bench"})
    rows = Rows((int(number), int(width)), np.float16, cache.recipe, cache.blocks(wanted))
    names = [f"{place:08}.png" for place in range(int(number))]
    matrix.write(Path(folder) / "matrix.h5", sha256_of(wanted), names, "", rows)


def stream(kind: str, folder: str, rows: str, judged: str) -> None:
    """Train a streaming head on the first rows of a stored matrix; print its accuracy on the last ones."""
    y, width = np.load(Path(folder) / "y.npy"), int(np.load(Path(folder) / "width.npy"))
    mapped = np.asarray(np.memmap(Path(folder) / "X", np.float16, "r", shape=(len(y), width)))
    head = heads.HEADS[kind]().fit(Stored([mapped], np.arange(int(rows))), y[: int(rows)])
    last = np.arange(len(y) - int(judged), len(y))
    sys.stdout.write(f"{(head.predict(Stored([mapped], last)) == y[last]).mean()}\n")


def peak() -> float:
    """Return this process's peak in MB; `ru_maxrss` would tell that of the process it was forked from, if larger."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


if __name__ == "__main__":
    work: dict[str, Callable[..., None]] = {"embed": embed, "materialise": materialise, "stream": stream}
    work[sys.argv[1]](*sys.argv[2:])
    sys.stdout.write(f"\n{peak():.1f}")
