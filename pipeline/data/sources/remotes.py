"""A remote root as a place, whatever fsspec can reach; the table of what lies under it is local."""

import json
import math
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property, partial
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
"""Files that are asked for at once: most of the time is the way there and back."""
_SMALL = 1 << 24
"""Bytes: more are fetched by one thread at a time, and in pieces."""
_CERTAIN = ("ETag", "etag", "md5", "md5Hash", "Content-MD5", "content_md5", "checksum", "VersionId", "generation")
"""What file systems call a thing that is another for other bytes."""
_DATED = ("Last-Modified", "LastModified", "last_modified", "mtime", "updated", "created")
"""And what they call a time of change, which is less: several changes may have the same."""
_MISSING = (404, 410)
"""HTTP's statuses of what is not there."""


class Remote(Place):
    """A remote root; its images are read into the store."""

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
        """Refuse: only some remote places can be listed, and a table is what DVC sees changes of."""
        raise InputError("params.yaml: data.remote: needs a table of what lies there: set data.source: table")

    def read(self, name: str) -> bytes:
        """Return the bytes of a local file."""
        path = self.data.path if self.data.path.is_file() else self.data.path / name
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error

    def table(self) -> str:
        """Return the name of the table, which is `data.path` itself or lies in that folder."""
        path = self.data.path
        if path.is_file():
            return path.name
        return only_table([one.name for one in path.iterdir() if one.is_file()], path)

    def shown_table(self, name: str) -> str:
        """Return the path of the table, which is local."""
        return str(self.data.path if self.data.path.is_file() else self.data.path / name)

    def name_of(self, cell: str) -> str:
        """Return the name of what a table gives as a name or a whole URL."""
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
        """Yield nothing: only `marks` reaches out, so that listing and auditing need no network."""
        return iter(())

    def marks(self, names: Sequence[str]) -> Sequence[str | None]:
        """Ask for every file; InputError with those that are missing, or at once if nothing answers."""
        now, answers = time.time(), list(in_threads(self._look, names, _WORKERS))
        if wrong := [one for one in answers if isinstance(one, str)]:
            raise InputError(*first_five(wrong, "problems"))
        self._known |= {name: (_mark(one, now), one.get("size")) for name, one in zip(names, answers, strict=True)}
        return [self._known[name][0] for name in names]

    def _look(self, name: str) -> Any:  # noqa: ANN401  # what JSON holds, and dates
        """Return what the file system says of a file, or a line if it is missing; InputError if it says nothing."""
        url = self._url(name)
        with _words(url):
            try:
                found = self._files.info(url)
            except FileNotFoundError as error:
                if _is_missing(error):
                    return f"{url}: no such file"
                raise
        if found.get("type", "file") != "file" or found.get("islink"):  # a link may lead out of the root
            return f"{url}: not a regular file"
        size = found.get("size") or 0
        return f"{url}: {size:,} bytes, expected an image of at most {MOST_BYTES:,}" if size > MOST_BYTES else found

    def hashed(self, names: Sequence[str], unwanted: Collection[str], *, keep: bool) -> Iterator[Sequence[Hashed]]:
        """Fetch files, several at once; `marks` has been asked for them."""
        for name, sha256 in zip(
            names, in_threads(partial(self._fetched, unwanted, keep), names, _WORKERS), strict=True
        ):
            yield [Hashed(name, sha256, self._known[name][0])]

    def _fetched(self, unwanted: Collection[str], keep: bool, name: str) -> str:
        return store.put(self._pieces(name, self._known[name][1]), unwanted, keep=keep)

    def content(self, name: str) -> bytes:
        """Return a file's bytes, for whom no store has them; InputError if it cannot be had."""
        found = self._look(name)
        if isinstance(found, str):
            raise InputError(found)
        return b"".join(self._pieces(name, found.get("size")))

    def _pieces(self, name: str, expected: int | None) -> Iterator[bytes]:
        url, got = self._url(name), 0
        with _words(url):
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


class Listed(Remote):
    """A remote root that can be listed, as not all can; the table is written from it."""

    def names(self) -> Iterator[str]:
        """Yield what lies under it."""
        with _words(self.root):
            root = self._files._strip_protocol(self.root)  # what its own answers begin with
            # A host that does not answer looks like an empty folder to `find`, but not to `ls`.
            paths = self._files.find(self.root) or self._files.ls(self.root, detail=False)
            found = [str(path).removeprefix(root).lstrip("/") for path in paths]
        names = (unquote(name) if self._is_web else name for name in found)
        return (name for name in names if not hidden(name))


def fetch(url: str, path: Path) -> None:
    """Read one file into a local one, whole or not at all; InputError if it cannot be had."""
    import fsspec  # noqa: PLC0415  # only where it is needed

    with _words(url), replacing(path) as temporary, fsspec.open(url, "rb") as source, temporary.open("wb") as target:
        for piece in pieces(source):
            target.write(piece)


@contextmanager
def _words(url: str) -> Iterator[None]:
    """Turn whatever a file system raises into words; each has exceptions of its own."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = error.__cause__ or error
        said = one_line(reason) or type(reason).__name__
        raise InputError(f"{url}: cannot be read ({said}); what was read before is kept") from error


def _is_missing(error: FileNotFoundError) -> bool:
    """Tell a file that is not there from a host that does not answer, which fsspec calls the same."""
    cause = error.__cause__
    return cause is None or isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) in _MISSING


def _mark(found: Mapping[str, Any], now: float) -> str | None:
    """Return what would be another if the file was; None if nothing is, or it changed a moment ago."""
    certain = {name: found[name] for name in _CERTAIN if found.get(name)}
    dated = {name: found[name] for name in _DATED if found.get(name)}
    if not certain and (not dated or any(_seconds(value) > now - SETTLED_NS / 1e9 for value in dated.values())):
        return None
    return json.dumps({**certain, **dated, "size": found.get("size"), "ino": found.get("ino")}, default=str)


def _seconds(value: object) -> float:
    """Return a date in seconds since 1970; infinity if it is none that is known."""
    try:
        if isinstance(value, str):
            value = parsedate_to_datetime(value)
        if isinstance(value, datetime):
            return value.timestamp()
        return float(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return math.inf
