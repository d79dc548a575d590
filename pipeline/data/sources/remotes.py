"""A remote root that fsspec can reach, as a place; the table of its files is local."""

import json
import math
import shutil
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pipeline.core.atomic import replacing
from pipeline.core.errors import InputError, first_five, one_line
from pipeline.core.look_ahead import in_threads
from pipeline.core.sections import Data
from pipeline.data.sources import store
from pipeline.data.sources.memo import SETTLED_NS
from pipeline.data.sources.place import MOST_BYTES, Hashed, Place, hidden, normal, only_table, pieces

_WORKERS = 16
"""Files requested at once: most of the time is latency."""
_SMALL = 1 << 24
"""Bytes: larger files are fetched by one thread at a time, in pieces."""
_CERTAIN = ("ETag", "etag", "md5", "md5Hash", "Content-MD5", "content_md5", "checksum", "VersionId", "generation")
"""File systems' names for attributes that change with the bytes."""
_DATED = ("Last-Modified", "LastModified", "last_modified", "mtime", "updated", "created")
"""Their names for the time of change, which is less reliable: two changes may have the same."""
_MISSING = (404, 410)
"""HTTP statuses of missing files."""


class Remote(Place):
    """A remote root, whose images are read into the store."""

    def __init__(self, data: Data) -> None:
        super().__init__(data)
        self.root, self.prefix = str(data.remote), f"{data.remote}/"
        self.large = threading.Lock()
        self._known: dict[str, tuple[str | None, int | None]] = {}

    @cached_property
    def _files(self) -> Any:  # noqa: ANN401  # fsspec has no types
        import fsspec  # noqa: PLC0415  # only where it is needed

        try:
            return fsspec.core.url_to_fs(self.root)[0]
        except (ImportError, ValueError) as error:
            raise InputError(f"params.yaml: data.remote: {self.data.remote}: {error}") from error

    def names(self) -> Iterator[str]:
        """Refuse: not all remote roots can be listed, and DVC notices only changes of a table."""
        raise InputError("params.yaml: data.remote: needs a table of the files there: set data.source: table")

    def read(self, name: str) -> bytes:
        """Return the bytes of a local file."""
        path = self.data.path if self.data.path.is_file() else self.data.path / name
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error

    def table(self) -> str:
        """Return the name of the table, which is `data.path` itself or in that folder."""
        path = self.data.path
        if path.is_file():
            return path.name
        return only_table([one.name for one in path.iterdir() if one.is_file()], path)

    def shown_table(self, name: str) -> str:
        """Return the path of the table, which is local."""
        return str(self.data.path if self.data.path.is_file() else self.data.path / name)

    def name_of(self, cell: str) -> str:
        """Return the name that a cell gives, as a name or as a whole URL."""
        if not cell.startswith(self.prefix):
            return normal(cell)
        rest = cell.removeprefix(self.prefix)
        return normal(unquote(rest) if self._is_web else rest)

    @property
    def _is_web(self) -> bool:
        return self.root.startswith(("http://", "https://"))

    def _url(self, name: str) -> str:
        return self.shown(quote(name) if self._is_web else name)

    def problems(self, names: Sequence[str]) -> Iterator[str]:  # noqa: ARG002
        """Yield nothing: only `fingerprints` uses the network, so that listing and auditing need none."""
        return iter(())

    def fingerprints(self, names: Sequence[str]) -> Sequence[str | None]:
        """Ask the remote side for every file; InputError lists the missing ones, or says that nothing answers."""
        now, answers = time.time(), list(in_threads(self._info, names, _WORKERS))
        if wrong := [one for one in answers if isinstance(one, str)]:
            raise InputError(*first_five(wrong, "problems"))
        for name, info in zip(names, answers, strict=True):
            self._known[name] = _fingerprint(info, now), info.get("size")
        return [self._known[name][0] for name in names]

    def _info(self, name: str) -> Any:  # noqa: ANN401  # a mapping with any values, or a text
        """Return the file system's attributes of a file, or why it is unusable; InputError if nothing answers."""
        url = self._url(name)
        with _input_errors(url):
            try:
                found = self._files.info(url)
            except FileNotFoundError as error:
                if _is_missing(error):
                    return f"{url}: no such file"
                raise
        if found.get("type", "file") != "file" or found.get("islink"):  # a link may point out of the root
            return f"{url}: not a regular file"
        size = found.get("size") or 0
        return f"{url}: {size:,} bytes, expected an image of at most {MOST_BYTES:,}" if size > MOST_BYTES else found

    def hashed(self, names: Sequence[str], unwanted: Collection[str], *, keep: bool) -> Iterator[Sequence[Hashed]]:
        """Fetch files, several at once; `fingerprints` must have been asked for them."""

        def put(name: str) -> str:
            return store.put(self._pieces(name, self._known[name][1]), unwanted, keep=keep)

        for name, sha256 in zip(names, in_threads(put, names, _WORKERS), strict=True):
            yield [Hashed(name, sha256, self._known[name][0])]

    def content(self, name: str) -> bytes:
        """Return a file's bytes, for processes without the store; InputError if it cannot be read."""
        found = self._info(name)
        if isinstance(found, str):
            raise InputError(found)
        return b"".join(self._pieces(name, found.get("size")))

    def _pieces(self, name: str, expected: int | None) -> Iterator[bytes]:
        url, got = self._url(name), 0
        with _input_errors(url):
            if expected is not None and expected <= _SMALL:
                content = self._files.cat_file(url)
                got += len(content)
                yield content
            else:
                with self.large, self._files.open(url, "rb") as stream:
                    for piece in pieces(stream):
                        got += len(piece)
                        if got > MOST_BYTES:
                            raise ValueError(f"more than {MOST_BYTES:,} bytes")
                        yield piece
            if expected is not None and got != expected:
                raise ValueError(f"got {got:,} bytes, expected {expected:,}")


class ListableRemote(Remote):
    """A remote root that can be listed, which not all can: `headswap init` writes the table from it."""

    def names(self) -> Iterator[str]:
        """Yield the names of the files under it."""
        with _input_errors(self.root):
            root = self._files._strip_protocol(self.root)  # the prefix of the paths it returns
            # A host that does not answer looks like an empty folder to `find`, but not to `ls`.
            paths = self._files.find(self.root) or self._files.ls(self.root, detail=False)
            found = [str(path).removeprefix(root).lstrip("/") for path in paths]
        names = (unquote(name) if self._is_web else name for name in found)
        return (name for name in names if not hidden(name))


def fetch(url: str, path: Path) -> Path:
    """Download one file, as a whole or not at all; return its path; InputError if it cannot be read."""
    import fsspec  # noqa: PLC0415  # only where it is needed

    with (
        _input_errors(url),
        replacing(path) as temporary,
        fsspec.open(url, "rb") as source,
        temporary.open("wb") as target,
    ):
        shutil.copyfileobj(source, target)
    return path


@contextmanager
def _input_errors(url: str) -> Iterator[None]:
    """Turn whatever a file system raises into an InputError; each has exceptions of its own."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = error.__cause__ or error
        why = one_line(reason) or type(reason).__name__
        raise InputError(f"{url}: cannot be read ({why}); files read before are kept") from error


def _is_missing(error: FileNotFoundError) -> bool:
    """Return whether the file is missing, for which fsspec raises the same as for a host that does not answer."""
    cause = error.__cause__
    return cause is None or isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) in _MISSING


def _fingerprint(found: Mapping[str, Any], now: float) -> str | None:
    """Return a file's fingerprint; None if no attribute gives one, or if the file changed a moment ago."""
    certain = {name: found[name] for name in _CERTAIN if found.get(name)}
    dated = {name: found[name] for name in _DATED if found.get(name)}
    if not certain and (not dated or any(_seconds(value) > now - SETTLED_NS / 1e9 for value in dated.values())):
        return None
    return json.dumps({**certain, **dated, "size": found.get("size"), "ino": found.get("ino")}, default=str)


def _seconds(value: object) -> float:
    """Return a date in seconds since 1970; infinity if its format is unknown."""
    try:
        if isinstance(value, str):
            value = parsedate_to_datetime(value)
        if isinstance(value, datetime):
            return value.timestamp()
        return float(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return math.inf
