"""Place: where a data set's bytes are, which is a folder, an archive or a remote root."""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import IO, NamedTuple

from pipeline.core.errors import InputError
from pipeline.core.sections import Data

MOST_BYTES = 1 << 30
"""Of one file in an archive or under a remote root: larger files are not images."""
_PIECE = 1 << 20
"""Bytes read at once."""
_ODD = re.compile(r"(^|/)\.?(/|$)")
TABLES = ("labels.csv", "labels.parquet")


class Hashed(NamedTuple):
    """One file that was read in full."""

    name: str
    sha256: str
    fingerprint: str | None
    """Changes with the content; None if nothing reliable is known of the file."""


class Place(ABC):
    """Where a data set is. A name is a path inside the place, with '/' between its parts."""

    in_store = True
    """Whether images are opened in the store, since they are not files of their own here."""

    def __init__(self, data: Data) -> None:
        self.data, self.root = data, str(data.path)
        self.prefix = (data.path / "x").as_posix().removesuffix("x")

    @abstractmethod
    def names(self) -> Iterator[str]:
        """Yield the name of every file that is not hidden; InputError if the place cannot be listed."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the bytes of a small file, such as a table; InputError if it is missing."""

    @abstractmethod
    def table(self) -> str:
        """Return the name of the place's only table of labels; InputError if there is none, or several."""

    def name_of(self, cell: str) -> str:
        """Return the name that a table's cell means."""
        return normal(cell)

    @abstractmethod
    def problems(self, names: Sequence[str]) -> Iterator[str]:
        """Yield a line for each name that is not a regular file in this place; no name contains '..'."""

    @abstractmethod
    def fingerprints(self, names: Sequence[str]) -> Sequence[str | None]:
        """Return each file's fingerprint, which changes with its content; None if it is not known."""

    @abstractmethod
    def hashed(self, names: Sequence[str], unwanted: Collection[str], *, keep: bool) -> Iterator[Sequence[Hashed]]:
        """Read files in full; yield some at a time, in any order.

        Args:
            names: of the files.
            unwanted: sha256s of images that must not get into the store.
            keep: whether to put the others there; files in a folder never are.

        Raises:
            InputError: if a file cannot be read.

        """

    def shown(self, name: str) -> str:
        """Return a file's name or path as a person finds it."""
        return f"{self.prefix}{name}"

    def shown_table(self, name: str) -> str:
        """Return the table's name or path as a person finds it."""
        return self.shown(name)


def normal(name: str) -> str:
    """Return a path without empty parts and '.': `./a//b` is `a/b`."""
    return str(PurePosixPath(name)) if _ODD.search(name) else name


def hidden(name: str) -> bool:
    """Return whether a file is hidden: its name, or a folder's above it, begins with a dot, or macOS made it."""
    if "/." not in name and not name.startswith((".", "__MACOSX/")):
        return False
    return name.startswith("__MACOSX/") or any(part.startswith(".") and part != ".." for part in name.split("/"))


def only_table(names: Iterable[str], where: object) -> str:
    """Return the table called `labels`, else the only table; InputError if there is none, or several.

    Args:
        names: of the files directly in the place.
        where: the place, for messages.

    """
    tables = sorted(name for name in names if is_table(name) and not hidden(name))
    tables = [name for name in tables if name in TABLES] or tables
    if len(tables) > 1:
        listed = f"{', '.join(tables[:5])}{' ...' if len(tables) > 5 else ''}"
        raise InputError(f"{where}: got the tables {listed}, expected one, or one of them called {TABLES[0]}")
    if not tables:
        raise InputError(f"{where}/{TABLES[0]}: cannot be read (no such file, and no other table either)")
    if not tables[0].isprintable():
        raise InputError(f"{where}: {tables[0]!r}: the table's name is not printable; rename the file")
    return tables[0]


def is_table(name: str) -> bool:
    """Return whether a file's name is that of a table."""
    return name.lower().endswith((".csv", ".parquet"))


def blocks_of(items: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    """Split a sequence into blocks of a size; the last may be shorter."""
    return (items[start : start + size] for start in range(0, len(items), size))


def pieces(stream: IO[bytes]) -> Iterator[bytes]:
    """Read a stream to its end, in pieces that bound memory."""
    while piece := stream.read(_PIECE):
        yield piece
