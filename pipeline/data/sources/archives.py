"""An archive as a place; no member is ever unpacked to a name that the archive chose."""

import shutil
import time
import zlib
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from lzma import LZMAError
from pathlib import Path
from tarfile import TarError
from typing import IO, Any
from zipfile import BadZipFile

from pipeline.core.errors import InputError
from pipeline.core.sections import Data
from pipeline.data.sources import store
from pipeline.data.sources.memo import fingerprint_of
from pipeline.data.sources.place import MOST_BYTES, Hashed, Place, blocks_of, hidden, normal, only_table, pieces

_BATCH = 64
"""Members hashed between two reports."""
_DAMAGED = (
    BadZipFile, TarError, zlib.error, LZMAError, EOFError, OSError, NotImplementedError, ValueError, RuntimeError,
    OverflowError,
)  # fmt: skip
"""Errors that damaged archives raise."""
NO_FILE = "a link or a device, expected a regular file"


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    handle: Any
    """Identifies it to the archive."""
    size: int
    """Bytes, as the archive states."""
    problem: str | None = None
    """Why it cannot be read, if it cannot."""


class Archive(Place):
    """An archive file with the images, which are read into the store."""

    def __init__(self, data: Data) -> None:
        super().__init__(data)
        self._fingerprint = self._fingerprint_now()  # before anything in it is read

    @abstractmethod
    def _members(self) -> Iterable[tuple[str, Member]]:
        """Yield name and Member of everything but folders, in the archive's order."""

    @abstractmethod
    def _opened(self) -> AbstractContextManager[Callable[[Any], IO[bytes]]]:
        """Open the archive; yield a function that opens a member by its handle."""

    @property
    def _index(self) -> Mapping[str, Member]:
        return self._listing[1]

    def shown(self, name: str) -> str:
        """Return the path in the archive, below the archive's own."""
        return f"{self.prefix}{self._listing[0]}{name}"

    @cached_property
    def _listing(self) -> tuple[str, Mapping[str, Member]]:
        """List the archive, without the one folder that holds everything, if there is one.

        Returns:
            That folder with a slash, or an empty text; and name -> member.

        Raises:
            InputError: if the archive is damaged.

        """
        found: dict[str, Member] = {}
        with self._input_errors():
            for path, member in self._members():
                name = normal(path)
                found[name] = Member(None, 0, "twice in the archive") if name in found else member
        tops = {name[: name.find("/") + 1] for name in found if not hidden(name)}
        top = tops.pop() if len(tops) == 1 else ""  # empty also if a file lies beside the folders
        return top, {name.removeprefix(top): member for name, member in found.items() if name.startswith(top)}

    @contextmanager
    def _input_errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise InputError(f"{self.data.path}: no such file") from error
        except _DAMAGED as error:
            raise InputError(f"{self.data.path}: damaged, or not an archive ({error})") from error

    def names(self) -> Iterator[str]:
        """Yield the names in its list."""
        return (name for name in self._index if not hidden(name))

    def files(self) -> list[str]:
        """Return the names of all readable members, including hidden ones."""
        return [name for name, member in self._index.items() if member.problem is None]

    def table(self) -> str:
        """Return the name of the table."""
        return only_table([name for name in self._index if "/" not in name], self.data.path)

    def read(self, name: str) -> bytes:
        """Return the bytes of a member."""
        if problem := next(self.problems([name]), None):
            raise InputError(problem)
        with self._input_errors(), self._opened() as opened, opened(self._index[name].handle) as stream:
            return b"".join(pieces(stream))

    def problems(self, names: Sequence[str]) -> Iterator[str]:
        """Yield a line for each name that its list lacks, or that cannot be read."""
        for name in names:
            member = self._index.get(name)
            if problem := "no such file in the archive" if member is None else member.problem:
                yield f"{self.shown(name)}: {problem}"

    def _fingerprint_now(self) -> str | None:
        now = time.time_ns()
        try:
            found = self.data.path.stat()
        except OSError:
            return None
        return fingerprint_of(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, now)

    def fingerprints(self, names: Sequence[str]) -> Sequence[str | None]:
        """Return the archive's own fingerprint for each member."""
        return [self._fingerprint] * len(names)

    def hashed(self, names: Sequence[str], unwanted: Collection[str], *, keep: bool) -> Iterator[Sequence[Hashed]]:
        """Read members in the archive's order, each in pieces."""
        wanted = set(names)
        ordered = [name for name in self._index if name in wanted]
        if keep:
            self._require_space(ordered)
        with ExitStack() as stack:
            with self._input_errors():
                opened = stack.enter_context(self._opened())
            for batch in blocks_of(ordered, _BATCH):
                yield [Hashed(name, self._put(name, opened, unwanted, keep=keep), self._fingerprint) for name in batch]

    def _require_space(self, names: Sequence[str]) -> None:
        needed, free = sum(self._index[name].size for name in names), shutil.disk_usage(Path()).free
        if needed > free:
            raise InputError(
                f"{self.data.path}: its images take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free here"
            )

    def _put(
        self, name: str, opened: Callable[[Any], IO[bytes]], unwanted: Collection[str], *, keep: bool
    ) -> str:  # fmt: skip
        """Hash a member, and put it into the store if `keep`; return its sha256."""

        def blocks() -> Iterator[bytes]:
            try:
                with opened(self._index[name].handle) as stream:
                    yield from pieces(stream)
            except _DAMAGED as error:
                raise InputError(f"{self.shown(name)}: damaged ({error})") from error

        return store.put(blocks(), unwanted, keep=keep)


def unreadable(size: int, *, regular: bool) -> str | None:
    """Return why a member cannot be an image, if it cannot."""
    if not regular:
        return NO_FILE
    return f"{size:,} bytes, expected an image of at most {MOST_BYTES:,}" if size > MOST_BYTES else None
