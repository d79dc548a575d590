"""An archive as a place; nothing in it is ever unpacked to a name that it chose."""

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
from pipeline.data.sources.memo import mark_of
from pipeline.data.sources.place import MOST_BYTES, Hashed, Place, blocks_of, hidden, normal, only_table, pieces

_BATCH = 64
"""Members that are told of at once."""
_DAMAGED = (
    BadZipFile, TarError, zlib.error, LZMAError, EOFError, OSError, NotImplementedError, ValueError, RuntimeError,
    OverflowError,
)  # fmt: skip
"""What reading raises where an archive is not what its format says."""
NO_FILE = "a link or a device, expected a regular file"


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    handle: Any
    """What the archive is asked for it with."""
    size: int
    """Bytes, as the archive says."""
    problem: str | None = None
    """Why it cannot be read."""


class Archive(Place):
    """A file that holds the images; they are read into the store."""

    def __init__(self, data: Data) -> None:
        super().__init__(data)
        self._looks = self._look()  # before anything in it is read

    @abstractmethod
    def _members(self) -> Iterable[tuple[str, Member]]:
        """Yield name and description of everything in it but folders, in the order in which it lies there."""

    @abstractmethod
    def _opened(self) -> AbstractContextManager[Callable[[Any], IO[bytes]]]:
        """Open the archive; yield what opens a member by its handle."""

    @property
    def _index(self) -> Mapping[str, Member]:
        return self._listing[1]

    def shown(self, name: str) -> str:
        """Return the path in the archive, below the archive's own."""
        return f"{self.prefix}{self._listing[0]}{name}"

    @cached_property
    def _listing(self) -> tuple[str, Mapping[str, Member]]:
        """List it from the one folder on that all is in, if there is one; InputError if it is damaged.

        Returns:
            That folder with a slash, or nothing; name -> member.

        """
        found: dict[str, Member] = {}
        with self._words():
            for said, member in self._members():
                name = normal(said)
                found[name] = Member(None, 0, "twice in the archive") if name in found else member
        tops = {name[: name.find("/") + 1] for name in found if not hidden(name)}
        top = tops.pop() if len(tops) == 1 else ""  # nothing, too, where a file lies beside the folders
        return top, {name.removeprefix(top): member for name, member in found.items() if name.startswith(top)}

    @contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise InputError(f"{self.data.path}: no such file") from error
        except _DAMAGED as error:
            raise InputError(f"{self.data.path}: damaged, or no such archive ({error})") from error

    def names(self) -> Iterator[str]:
        """Yield what its list says."""
        return (name for name in self._index if not hidden(name))

    def files(self) -> list[str]:
        """Return the names of all members that can be read, hidden ones included."""
        return [name for name, member in self._index.items() if member.problem is None]

    def table(self) -> str:
        """Return the name of the table."""
        return only_table([name for name in self._index if "/" not in name], self.data.path)

    def read(self, name: str) -> bytes:
        """Return the bytes of a member."""
        if problem := next(self.problems([name]), None):
            raise InputError(problem)
        with self._words(), self._opened() as opened, opened(self._index[name].handle) as stream:
            return b"".join(pieces(stream))

    def problems(self, names: Sequence[str]) -> Iterator[str]:
        """Look into its list."""
        for name in names:
            member = self._index.get(name)
            if problem := "no such file in the archive" if member is None else member.problem:
                yield f"{self.shown(name)}: {problem}"

    def _look(self) -> str | None:
        """Return what would be another if the archive was."""
        now = time.time_ns()
        try:
            found = self.data.path.stat()
        except OSError:
            return None
        return mark_of(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, now)

    def marks(self, names: Sequence[str]) -> Sequence[str | None]:
        """Return the archive's own mark for each."""
        return [self._looks] * len(names)

    def hashed(self, names: Sequence[str], unwanted: Collection[str], *, keep: bool) -> Iterator[Sequence[Hashed]]:
        """Read members in the order in which they lie there, each in pieces."""
        wanted, mark = set(names), self._looks
        ordered = [name for name in self._index if name in wanted]
        if keep:
            self._require_space(ordered)
        with ExitStack() as stack:
            with self._words():
                opened = stack.enter_context(self._opened())
            for batch in blocks_of(ordered, _BATCH):
                yield [Hashed(name, self._taken(name, opened, unwanted, keep=keep), mark) for name in batch]

    def _require_space(self, names: Sequence[str]) -> None:
        needed, free = sum(self._index[name].size for name in names), shutil.disk_usage(Path()).free
        if needed > free:
            raise InputError(
                f"{self.data.path}: its images take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free here"
            )

    def _taken(
        self, name: str, opened: Callable[[Any], IO[bytes]], unwanted: Collection[str], *, keep: bool
    ) -> str:  # fmt: skip
        def blocks() -> Iterator[bytes]:
            try:
                with opened(self._index[name].handle) as stream:
                    yield from pieces(stream)
            except _DAMAGED as error:
                raise InputError(f"{self.shown(name)}: damaged ({error})") from error

        return store.put(blocks(), unwanted, keep=keep)


def unreadable(size: int, *, regular: bool) -> str | None:
    """Say why a member cannot be an image, if it cannot."""
    if not regular:
        return NO_FILE
    return f"{size:,} bytes, expected an image of at most {MOST_BYTES:,}" if size > MOST_BYTES else None
