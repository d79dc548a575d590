"""A zip file as a place."""

import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from pipeline.data.sources.archives import Archive, Member, unreadable

_ENCRYPTED = 1
"""A bit of a member's flags."""
_READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The standard library decompresses other methods without a bound."""


class Zip(Archive):
    """A zip file; members compressed with bzip2 or LZMA, as images never are, are refused."""

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
        return "encrypted; make an archive without a password"
    if info.compress_type not in _READ:
        return "compressed by a rare method; make an archive with the usual one (deflate)"
    kind = stat.S_IFMT(info.external_attr >> 16)  # Unix file type; 0 if made elsewhere
    return unreadable(info.file_size, regular=kind in (0, stat.S_IFREG))
