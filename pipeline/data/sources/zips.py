"""A zip file as a place."""

import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from pipeline.data.sources.archives import Archive, Member, unreadable

_ENCRYPTED = 1
"""Bit of a member's flags."""
_READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The standard library unpacks the others without a bound."""


class Zip(Archive):
    """A zip file; what it packs with bzip2 or LZMA, as images never are, is refused."""

    def _members(self) -> Iterator[tuple[str, Member]]:
        with zipfile.ZipFile(self.data.path) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield info.filename, Member(info, info.file_size, _problem(info))

    @contextmanager
    def _opened(self) -> Iterator[Callable[[zipfile.ZipInfo], IO[bytes]]]:
        with zipfile.ZipFile(self.data.path) as archive:
            yield archive.open


def _problem(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & _ENCRYPTED:
        return "behind a password; make an archive without one"
    if info.compress_type not in _READ:
        return "packed in a rare way; make an archive with the usual compression (deflate)"
    kind = stat.S_IFMT(info.external_attr >> 16)  # of Unix; 0 elsewhere
    return unreadable(info.file_size, regular=kind in (0, stat.S_IFREG))
