"""Rows: what a head learns from or is judged by.

On their way to another process they are a reference, never features: which file, and which of its rows. A worker opens
the file by itself.
"""

import platform
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core import stamps
from pipeline.core.errors import StateError
from pipeline.data.splits import folds
from pipeline.embeddings.mapped import MappedRows
from pipeline.heads.types import Features, Floats, Ints, Labels


def packed(numbers: Ints) -> bytes:
    """Return numbers (n,) as few bytes: row numbers mostly ascend, and their differences take a few bits each."""
    return zlib.compress(np.diff(numbers, prepend=0).astype(np.int64).tobytes(), level=1)


def unpacked(content: bytes) -> Ints:
    """Return the numbers (n,) that were packed, in their order."""
    return np.frombuffer(zlib.decompress(content), np.int64).cumsum()


def _coded(labels: Labels) -> tuple[Labels, bytes]:
    """Return the different labels, and which of them each of (n,) is."""
    names, codes = np.unique(labels, return_inverse=True)
    return names, packed(codes)


@dataclass(frozen=True)
class Matrix:
    """The features of an embeddings file; pickled, it is where they are."""

    path: Path
    """Absolute: workers run in folders of their own."""
    sha256: str
    """Of the bytes that this process has checked; a worker takes no others."""
    parts: tuple[str, ...]
    """The data sets whose rows are put below one another."""
    streams: bool
    """Whether rows stay in the file, for heads that read it block by block."""
    mapped: Sequence[Floats] | None = field(default=None, compare=False, repr=False)
    """The parts, where this process has them open."""

    def chosen(self, rows: Ints) -> Features:
        """Return some rows: unread, or (n, D) in single precision.

        Raises:
            StateError: if this process cannot read the file, or finds other bytes in it.

        """
        stored = MappedRows(_opened(self) if self.mapped is None else self.mapped, rows)
        return stored if self.streams else stored[:].astype(np.float32, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Matrix, (self.path, self.sha256, self.parts, self.streams)


@lru_cache(maxsize=8)  # maps take no memory, but a file that was replaced stays on disk as long as it is mapped
def _opened(matrix: Matrix) -> Sequence[Floats]:
    """Map a matrix on a worker, once per process; the file is hashed before HDF5 parses it."""
    from pipeline.embeddings import hdf5  # noqa: PLC0415  # h5py, which only workers need here

    path, expected = matrix.path, stamps.Stamp("", {matrix.path.as_posix(): matrix.sha256}, {})
    try:
        with stamps.checked(path, expected) as stream:
            return hdf5.mapped(stream, matrix.parts, path)
    except StateError as error:
        raise StateError(*(f"worker on {platform.node()}: {problem}" for problem in error.problems)) from error


Source = Matrix | Floats
"""Where rows are taken from."""


@dataclass(frozen=True)
class Rows:
    """What a head learns from or is judged by: n rows, some of which may be further views of the same image."""

    source: Source
    at: Ints
    """(n,) rows of the source."""
    y: Labels
    """(n,)."""
    image: Ints
    """(n,) numbers the images; the first row of each is the image as it is."""
    group: Labels
    """(n,) patients, modules, sessions: what must not straddle folds; empty where there are none."""

    @classmethod
    def of(cls, X: Floats, y: Labels, image: Ints | None = None, group: Labels | None = None) -> "Rows":
        """Make rows of plain arrays; left out, every row is an image of its own and there are no groups."""
        at = np.arange(len(y))
        return cls(X, at, y, at if image is None else image, np.full(len(y), "") if group is None else group)

    @cached_property
    def X(self) -> Features:  # noqa: N802  # what scikit-learn calls it
        """(n, D); StateError as `Matrix.chosen`."""
        return self.source.chosen(self.at) if isinstance(self.source, Matrix) else self.source[self.at]

    @cached_property
    def origin(self) -> Ints:
        """(n, 2): the number of each row's image, and of its group."""
        return folds.origin_of(self.image, self.group)

    def __getitem__(self, chosen: Ints) -> "Rows":
        """Return some of the rows, with features that are still unread."""
        return Rows(self.source, self.at[chosen], self.y[chosen], self.image[chosen], self.group[chosen])

    def __add__(self, other: "Rows") -> "Rows":
        """Put other images below these."""
        source, at = _below(self, other)
        return Rows(
            source,
            at,
            np.concatenate([self.y, other.y]),
            np.concatenate([self.image, other.image + self.image.max() + 1]),
            np.concatenate([self.group, other.group]),
        )

    def __reduce__(self) -> tuple[Callable[..., "Rows"], tuple[Any, ...]]:
        return _arrived, self._travelling

    @cached_property
    def _travelling(self) -> tuple[Any, ...]:
        """What is sent, made once for all the tasks that share these rows."""
        return self.source, packed(self.at), packed(self.image), _coded(self.y), _coded(self.group)


def _arrived(source: Source, at: bytes, image: bytes, *coded: tuple[Labels, bytes]) -> Rows:
    y, group = (names[unpacked(codes)] for names, codes in coded)
    return Rows(source, unpacked(at), y, unpacked(image), group)


def _below(first: Rows, second: Rows) -> tuple[Source, Ints]:
    """Return where the rows of both are; those of one matrix stay unread."""
    if isinstance(first.source, Matrix) and first.source == second.source:
        return first.source, np.concatenate([first.at, second.at])
    X = np.concatenate([np.asarray(first.X), np.asarray(second.X)])
    return X, np.arange(len(X))
