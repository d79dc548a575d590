"""Place: where the bytes of a data set are; a folder, an archive or a remote root."""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import IO, NamedTuple

from pipeline.core.errors import InputError
from pipeline.core.sections import Data

MOST_BYTES = 1 << 30
"""Of one file in an archive or under a remote root: what is larger is no image."""
_PIECE = 1 << 20
"""Bytes that are read at once."""
_ODD = re.compile(r"(^|/)\.?(/|$)")
TABLES = ("labels.csv", "labels.parquet")


class Hashed(NamedTuple):
    """One file that was read in full."""

    name: str
    sha256: str
    mark: str | None
    """What would be another if the file was; None if it is too new to tell, or nothing does."""


class Place(ABC):
    """Where a data set is. A name is a path inside it, with '/' between its parts."""

    in_store = True
    """Whether images are opened in the store, for they are no files here."""

    def __init__(self, data: Data) -> None:
        self.data, self.root = data, str(data.path)
        self.prefix = (data.path / "x").as_posix().removesuffix("x")

    @abstractmethod
    def names(self) -> Iterator[str]:
        """Yield the name of every file but hidden ones; InputError if that cannot be known."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the bytes of a small file, such as a table; InputError if it is not there."""

    @abstractmethod
    def table(self) -> str:
        """Return the name of the one table of labels that is here; InputError if there is none or several."""

    def name_of(self, cell: str) -> str:
        """Return the name that a table means."""
        return normal(cell)

    @abstractmethod
    def problems(self, names: Sequence[str]) -> Iterator[str]:
        """Yield a line for each name, none of them with '..' in it, that is no regular file in here."""

    @abstractmethod
    def marks(self, names: Sequence[str]) -> Sequence[str | None]:
        """Return what would be another if the file was, for each name; None where that cannot be known."""

    @abstractmethod
    def hashed(self, names: Sequence[str], unwanted: Collection[str], *, keep: bool) -> Iterator[Sequence[Hashed]]:
        """Read files in full, and yield some at a time, in any order.

        Args:
            names: which.
            unwanted: sha256s of what is not to be put into the store.
            keep: whether to put anything there; a file in a folder never is.

        Raises:
            InputError: if one cannot be read.

        """

    def shown(self, name: str) -> str:
        """Return how to call a file so that a person finds it."""
        return f"{self.prefix}{name}"

    def shown_table(self, name: str) -> str:
        """Return how to call the table."""
        return self.shown(name)


def normal(name: str) -> str:
    """Return a path without what does not change where it leads: `./a//b` is `a/b`."""
    return str(PurePosixPath(name)) if _ODD.search(name) else name


def hidden(name: str) -> bool:
    """Return whether a file is none of the user's: its name, or that of a folder above it, begins with a dot."""
    if "/." not in name and not name.startswith((".", "__MACOSX/")):
        return False
    return name.startswith("__MACOSX/") or any(part.startswith(".") and part != ".." for part in name.split("/"))


def only_table(names: Iterable[str], where: object) -> str:
    """Return the table that is meant: the one called `labels`, else the only one; InputError if none or several are.

    Args:
        names: of the files that lie in the place itself, and in no folder there.
        where: the place, for people.

    """
    tables = sorted(name for name in names if is_table(name) and not hidden(name))
    meant = [name for name in tables if name in TABLES] or tables
    if len(meant) > 1:
        listed = f"{', '.join(meant[:5])}{' ...' if len(meant) > 5 else ''}"
        raise InputError(f"{where}: got the tables {listed}, expected one, or one of them called {TABLES[0]}")
    if not meant:
        raise InputError(f"{where}/{TABLES[0]}: cannot be read (no such file, and no other table either)")
    if not meant[0].isprintable():
        raise InputError(f"{where}: {meant[0]!r}: the table's name is not printable; rename the file")
    return meant[0]


def is_table(name: str) -> bool:
    """Return whether a file is called as a table is."""
    return name.lower().endswith((".csv", ".parquet"))


def blocks_of(items: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    """Cut a sequence into pieces of a size."""
    return (items[start : start + size] for start in range(0, len(items), size))


def pieces(stream: IO[bytes]) -> Iterator[bytes]:
    """Read a stream to its end, so much at a time that memory is bounded."""
    while piece := stream.read(_PIECE):
        yield piece
