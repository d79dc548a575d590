"""Heads that train from the file: their memory on a million rows, and their accuracy against heads in memory."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure, at_least, at_most
from benchmarks.sweep import features
from pipeline import heads
from pipeline.embeddings.mapped import MappedRows

ROWS, WIDTH, CLASSES, JUDGED = 1_000_000, 1_280, 20, 20_000
SUBSET = 50_000
BLOCK = 20_000
# streaming head -> the head in memory that it stands in for, with the C that a sweep chooses on such features
IN_MEMORY: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "streaming_linear": ("logreg", {"C": 0.002}),
    "streaming_mlp": ("mlp", {"hidden": 256}),
}


def measure() -> Iterator[Figure]:
    """Write the matrix, train from it in processes of their own, and remove it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        y = _write(folder)
        mapped = np.asarray(np.memmap(folder / "X", np.float16, "r", shape=(len(y), WIDTH)))
        subset, last = MappedRows([mapped], np.arange(SUBSET)), MappedRows([mapped], np.arange(ROWS, ROWS + JUDGED))
        for kind, (other, settings) in IN_MEMORY.items():
            start = time.perf_counter()
            accuracy, peak = _streamed(kind, folder, ROWS)
            detail = f"{time.perf_counter() - start:.0f} s, accuracy {100 * accuracy:.1f}%"
            yield at_most(f"{kind} on {ROWS:,} x {WIDTH:,}, peak memory ({detail})", peak / 1000, "GB", 1.5)
            on_subset, _ = _streamed(kind, folder, SUBSET)
            model = heads.HEADS[other](**settings).fit(subset[:], y[:SUBSET])
            in_memory = float((model.predict(last[:]) == y[ROWS:]).mean())
            detail = f"{100 * on_subset:.2f} against {100 * in_memory:.2f}% by {other}"
            points = 100 * (on_subset - in_memory)
            yield at_least(f"{kind} on {SUBSET:,} rows, against in memory ({detail})", points, "pt", -1)


def _write(folder: Path) -> np.ndarray[Any, Any]:
    """Write 2.6 GB of float16 rows, those to judge by last; return the labels."""
    labels = []
    with (folder / "X").open("wb") as stream:
        for number, start in enumerate(range(0, ROWS + JUDGED, BLOCK)):
            X, y = features(min(BLOCK, ROWS + JUDGED - start), WIDTH, CLASSES, seed=number)
            stream.write(X.astype(np.float16).tobytes())
            labels.append(y)
    np.save(folder / "y.npy", np.concatenate(labels))
    np.save(folder / "width.npy", WIDTH)
    return np.concatenate(labels)


def _streamed(kind: str, folder: Path, rows: int) -> tuple[float, float]:
    """Return the accuracy on the last rows, and the peak in MB of the process that trained."""
    arguments = ["stream", kind, str(folder), str(rows), str(JUDGED)]
    output = subprocess.check_output([sys.executable, "-m", "benchmarks.memory", *arguments], text=True)
    accuracy, peak = output.split()
    return float(accuracy), float(peak)
