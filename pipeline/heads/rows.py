"""Rows: labelled features that a head is fitted on or scored on.

To another process they travel as a reference, the file and the row numbers, never as features: the worker opens the
file itself.
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
    """Compress numbers (n,) into bytes: row numbers mostly ascend, so their differences compress well."""
    return zlib.compress(np.diff(numbers, prepend=0).astype(np.int64).tobytes(), level=1)


def unpacked(content: bytes) -> Ints:
    """Return the numbers (n,) of `packed`, in their order."""
    return np.frombuffer(zlib.decompress(content), np.int64).cumsum()


def _coded(labels: Labels) -> tuple[Labels, bytes]:
    """Return the distinct labels, and the packed number of each of (n,)."""
    names, codes = np.unique(labels, return_inverse=True)
    return names, packed(codes)


@dataclass(frozen=True)
class FeatureFile:
    """The features in an embeddings file; pickled, only the reference to the file."""

    path: Path
    """Absolute, because workers run in other folders."""
    sha256: str
    """Of the bytes that this process has checked; a worker accepts no others."""
    parts: tuple[str, ...]
    """The data sets of the file, whose rows are put below one another."""
    streams: bool
    """Whether rows stay in the file, for heads that read it block by block."""
    mapped: Sequence[Floats] | None = field(default=None, compare=False, repr=False)
    """The parts, if this process has them mapped."""

    def chosen(self, rows: Ints) -> Features:
        """Return some rows, (n, D): as a reference if they stream, else in single precision.

        Raises:
            StateError: if this process cannot read the file, or its bytes are not the expected ones.

        """
        stored = MappedRows(_map_file(self) if self.mapped is None else self.mapped, rows)
        return stored if self.streams else stored[:].astype(np.float32, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureFile, (self.path, self.sha256, self.parts, self.streams)


@lru_cache(maxsize=8)  # maps take no memory, but a replaced file stays on disk while it is mapped
def _map_file(file: FeatureFile) -> Sequence[Floats]:
    """Map a file on a worker, once per process; it is hashed before HDF5 parses it."""
    from pipeline.embeddings import hdf5  # noqa: PLC0415  # imports h5py, which only workers need here

    path, expected = file.path, stamps.Stamp("", {file.path.as_posix(): file.sha256}, {})
    try:
        with stamps.checked(path, expected) as stream:
            return hdf5.mapped(stream, file.parts, path)
    except StateError as error:
        raise StateError(*(f"worker on {platform.node()}: {problem}" for problem in error.problems)) from error


Source = FeatureFile | Floats
"""Where the features of rows are."""


@dataclass(frozen=True)
class Rows:
    """Labelled features: n rows, some of which may be further views of the same image."""

    source: Source
    at: Ints
    """(n,) the row of the source for each of these."""
    y: Labels
    """(n,)."""
    image: Ints
    """(n,) the number of the image; the first row of each image is the image as it is, the others are views of it."""
    group: Labels
    """(n,) the patient, module or session, which must not be split between folds; empty where there is none."""

    @classmethod
    def of(cls, X: Floats, y: Labels, image: Ints | None = None, group: Labels | None = None) -> "Rows":
        """Make rows of arrays in memory; by default, each row is a separate image without a group."""
        at = np.arange(len(y))
        return cls(X, at, y, at if image is None else image, np.full(len(y), "") if group is None else group)

    @cached_property
    def X(self) -> Features:  # noqa: N802  # what scikit-learn calls it
        """The features, (n, D); errors as `FeatureFile.chosen`."""
        return self.source.chosen(self.at) if isinstance(self.source, FeatureFile) else self.source[self.at]

    @cached_property
    def origin(self) -> Ints:
        """(n, 2): the number of each row's image, and of its group."""
        return folds.origin_of(self.image, self.group)

    def __getitem__(self, chosen: Ints) -> "Rows":
        """Return some of the rows; their features are read on demand."""
        return Rows(self.source, self.at[chosen], self.y[chosen], self.image[chosen], self.group[chosen])

    def __add__(self, other: "Rows") -> "Rows":
        """Append the rows of other images."""
        source, at = _below(self, other)
        return Rows(
            source,
            at,
            np.concatenate([self.y, other.y]),
            np.concatenate([self.image, other.image + self.image.max() + 1]),
            np.concatenate([self.group, other.group]),
        )

    def __reduce__(self) -> tuple[Callable[..., "Rows"], tuple[Any, ...]]:
        return _unpickled, self._packed

    @cached_property
    def _packed(self) -> tuple[Any, ...]:
        """The pickled content, made once for all tasks that share these rows."""
        return self.source, packed(self.at), packed(self.image), _coded(self.y), _coded(self.group)


def _unpickled(source: Source, at: bytes, image: bytes, *coded: tuple[Labels, bytes]) -> Rows:
    y, group = (names[unpacked(codes)] for names, codes in coded)
    return Rows(source, unpacked(at), y, unpacked(image), group)


def _below(first: Rows, second: Rows) -> tuple[Source, Ints]:
    """Return the common source of two sets of rows, and their row numbers in it; rows of the same file stay unread."""
    if isinstance(first.source, FeatureFile) and first.source == second.source:
        return first.source, np.concatenate([first.at, second.at])
    X = np.concatenate([np.asarray(first.X), np.asarray(second.X)])
    return X, np.arange(len(X))
