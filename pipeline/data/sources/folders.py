"""A local folder as a place."""

import hashlib
import os
import stat
import time
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

from pipeline.core import systems
from pipeline.core.errors import InputError, StateError
from pipeline.core.look_ahead import in_threads
from pipeline.core.sections import Data
from pipeline.data.sources.memo import fingerprint_of
from pipeline.data.sources.place import Hashed, Place, blocks_of, is_table, only_table

_CHUNK = 256
"""Files that a thread reads in one go."""
_BLOCK = 1 << 20
"""Bytes read at once."""


class Folder(Place):
    """A folder, whose images are opened where they are."""

    in_store = False

    def __init__(self, data: Data) -> None:
        super().__init__(data)
        self._fingerprints: dict[str, str | None] = {}
        """Of the files that `problems` has looked at, by name."""

    def names(self) -> Iterator[str]:
        """Walk the folder; a link to a folder is an InputError, since the files behind it would be missed."""
        folders = [""]
        while folders:
            above = folders.pop()
            for entry in self._entries(above):
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{above}{entry.name}/")
                elif entry.is_symlink() and _points_to_folder(entry):
                    raise InputError(f"{entry.path}: a link to a folder is not followed; move the folder here")
                else:
                    yield f"{above}{entry.name}"

    def _entries(self, above: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.data.path / above) as entries:
                return list(entries)
        except OSError as error:
            raise InputError(f"{self.shown(above)}: cannot be read ({error.strerror})") from error

    def read(self, name: str) -> bytes:
        """Return the bytes of a file."""
        try:
            return (self.data.path / name).read_bytes()
        except OSError as error:
            raise InputError(f"{self.shown(name)}: cannot be read ({error.strerror})") from error

    def table(self) -> str:
        """Return the name of the table."""
        entries = [entry for entry in self._entries("") if is_table(entry.name)]
        return only_table([entry.name for entry in entries if Path(entry.path).is_file()], self.data.path)

    def problems(self, names: Sequence[str]) -> Iterator[str]:
        """Yield a line for each name that is no regular file inside; each folder is resolved once."""
        folder, root = str(self.data.path), os.path.realpath(self.data.path)
        resolved: dict[str, bool] = {}
        for name in names:
            above = name.rpartition("/")[0]
            if above not in resolved:
                resolved[above] = not name.startswith("/") and _is_inside(root, f"{folder}/{above}")
            if not resolved[above]:
                yield f"{self.shown(name)}: leads out of the data folder {folder}"
            elif problem := self._problem(root, name):
                yield f"{self.shown(name)}: {problem}"

    def _problem(self, root: str, name: str) -> str | None:
        """Return why a name is not a regular file in the folder, if so; note its fingerprint otherwise."""
        path = f"{self.root}/{name}"
        try:
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                found = os.stat(path)  # noqa: PTH116  # a Path for each file takes longer than the call
                if not _is_inside(root, path):
                    return f"leads out of the data folder {self.data.path}"
        except OSError:
            return "no such file"
        if not stat.S_ISREG(found.st_mode):
            return "not a regular file"
        self._fingerprints[name] = fingerprint_of(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        return None

    def fingerprints(self, names: Sequence[str]) -> Sequence[str | None]:
        """Return the fingerprints that `problems` noted."""
        return [self._fingerprints.get(name) for name in names]

    def hashed(
        self, names: Sequence[str], unwanted: Collection[str], *, keep: bool  # noqa: ARG002  # nothing is stored
    ) -> Iterator[Sequence[Hashed]]:  # fmt: skip
        """Read files in chunks, each in one thread: hashing and reading release the interpreter's lock."""
        work = partial(_hash_all, self.root)
        yield from in_threads(work, blocks_of(names, _CHUNK), systems.cores())


def _points_to_folder(link: os.DirEntry[str]) -> bool:
    try:
        return link.is_dir()
    except OSError:  # the links form a circle
        return False


def _is_inside(root: str, path: str) -> bool:
    return f"{os.path.realpath(path)}/".startswith(f"{root.rstrip('/')}/")


def _hash_all(folder: str, names: Sequence[str]) -> list[Hashed]:
    return [_hash(name, f"{folder}/{name}") for name in names]


def _hash(name: str, path: str) -> Hashed:
    now = time.time_ns()
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a pipe would block for ever
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise StateError(f"{path}: not a regular file")
            block = os.read(file, min(status.st_size, _BLOCK))
            hasher, size = hashlib.sha256(block), len(block)
            while size != status.st_size and (block := os.read(file, _BLOCK)):
                hasher.update(block)
                size += len(block)
        finally:
            os.close(file)
    except OSError as error:
        raise StateError(f"{path}: cannot be read ({error.strerror}); run `dvc repro`") from error
    fingerprint = fingerprint_of(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, now)
    return Hashed(name, hasher.hexdigest(), fingerprint)
