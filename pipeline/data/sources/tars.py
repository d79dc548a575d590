"""A tar file as a place, compressed with gzip, bzip2, xz or not at all."""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from pipeline.data.sources.archives import Archive, Member, unreadable

_LONGEST = 1 << 24
"""Bytes of the largest header: tarfile reads as many as the file states, which may be more than there is memory."""
# A file's first bytes -> how to open it.
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}


class Tar(Archive):
    """A tar file."""

    def _members(self) -> Iterator[tuple[str, Member]]:
        with self._read() as archive:
            for info in archive:
                if not info.isdir():
                    yield info.name, Member(info, info.size, unreadable(info.size, regular=info.isreg()))
            # A damaged header in the middle ends the loop, too.
            file: Any = archive.fileobj
            file.seek(archive.offset)
            if any(block := file.read(tarfile.BLOCKSIZE)) or not block:
                raise tarfile.ReadError("it breaks off in the middle")

    @contextmanager
    def _opened(self) -> Iterator[Callable[[tarfile.TarInfo], IO[bytes]]]:
        with self._read() as archive:
            yield archive.extractfile  # type: ignore[misc]  # it always opens regular files, and is asked for no others

    @contextmanager
    def _read(self) -> Iterator[tarfile.TarFile]:
        with self.data.path.open("rb") as stream:
            start = stream.read(6)
        opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), open)
        with opener(self.data.path, "rb") as stream:
            bounded: Any = _Bounded(stream)
            with tarfile.TarFile(fileobj=bounded) as archive:
                yield archive


class _Bounded:
    """A stream that refuses to read very much at once."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.tell, self.seek, self.stream = stream.tell, stream.seek, stream

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes."""
        if size > _LONGEST:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self.stream.read(size)
