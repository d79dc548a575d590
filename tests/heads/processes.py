"""Rows of a matrix's file, and a cluster of real processes."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from pipeline.cluster import LocalProcess
from pipeline.core.stamps import sha256_file
from pipeline.embeddings import matrix
from pipeline.heads import Rows
from pipeline.heads.rows import FeatureFile
from tests.heads.examples import data


def matrix_file(path: Path, X: np.ndarray, *, streams: bool) -> FeatureFile:
    """Write features to a file that no process has open."""
    features = matrix.RowBlocks(X.shape, X.dtype, {}, [(np.arange(len(X)), X)])
    names = [str(row) for row in range(len(X))]
    matrix.write(path, np.zeros((len(X), 32), np.uint8), names, "", features)
    return FeatureFile(path, sha256_file(path), ("features",), streams)


def rows_of_file(folder: Path, n: int = 60, width: int = 6, *, streams: bool = False) -> Rows:
    """Make labelled rows of a file."""
    X, y = data(n=n, width=width)
    at = np.arange(n)
    return Rows(matrix_file(folder / "made.h5", X, streams=streams), at, y, at, np.full(n, ""))


class Processes:
    """A cluster of two real processes."""

    def map(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        with joblib.parallel_config("loky", n_jobs=2):
            yield from LocalProcess().map(function, tasks)


class Wire:
    """Pickles and unpickles every task, runs it in this process, and records its size in bytes."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def map(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        for task in tasks:
            content = pickle.dumps((function, task))
            self.sizes.append(len(content))
            arrived, its_task = pickle.loads(content)
            yield arrived(its_task)
