"""Write a file whole or not at all."""

import glob
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.core import systems

STALE_SECONDS = 3600


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place if the block ends well, unlink it if not.

    The data and the folder are fsynced, so that after a power cut `path` is the old file or the new one. What a killed
    process left beside `path` is removed once it is old enough to belong to no living one.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        remove_if_stale(left)
    with creating(path) as temporary:
        yield temporary


@contextmanager
def creating(path: Path) -> Iterator[Path]:
    """Do as `replacing`, for a name that nobody wrote before: so nothing can be left beside it.

    To look for that would list the folder: beside 20,000 shards it takes longer than to write one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


def remove_if_stale(temporary: Path) -> bool:
    """Remove a temporary file that nobody has written to for STALE_SECONDS; return whether it was so."""
    try:
        stale = time.time() - temporary.stat().st_mtime > STALE_SECONDS
        if stale:
            temporary.unlink()
    except FileNotFoundError:  # its writer has just renamed it
        return False
    return stale


def still_there(paths: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files of a listing that are there still, with their size and times: writers rename and remove some."""
    for path in paths:
        with suppress(FileNotFoundError):
            yield path, path.lstat()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        systems.sync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:  # noqa: ANN401  # whatever JSON can hold
    """Write JSON atomically: sorted keys, two spaces, so that equal content is equal bytes."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
