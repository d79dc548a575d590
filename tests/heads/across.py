"""Predictions of saved heads for the same rows, on any processor."""

from pathlib import Path

import numpy as np

from pipeline import heads
from pipeline.core import stamps
from tests.heads.examples import data

NAMES = ("logreg", "nystroem_svm", "knn", "mlp")


def predicted_by_saved_heads(folder: Path = Path()) -> list[np.ndarray]:
    X, _ = data(n=300, width=160, seed=1)
    files = {name: list((folder / name).iterdir()) for name in NAMES}
    stamped = {name: stamps.Stamp("train", stamps.hashes(paths), {}) for name, paths in files.items()}
    return [heads.predict(heads.load(folder / name, stamp), X) for name, stamp in stamped.items()]
