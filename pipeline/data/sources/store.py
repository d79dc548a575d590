"""The store: images that came out of an archive or a remote root, each in a file named by the sha256 of its bytes."""

import hashlib
import os
import re
import uuid
from collections.abc import Collection, Iterable
from pathlib import Path

from pipeline.core.atomic import remove_if_stale
from pipeline.core.sections import STORE
from pipeline.data.manifest import stored_path


def present() -> set[str]:
    """Return the sha256s of what is in the store."""
    found: set[str] = set()
    for folder in STORE.iterdir() if STORE.is_dir() else ():
        if re.fullmatch("[0-9a-f]{2}", folder.name):
            found.update(name for name in os.listdir(folder) if name.startswith(folder.name))  # noqa: PTH208  # 2 x as fast
    return found


def put(blocks: Iterable[bytes], unwanted: Collection[str], *, keep: bool = True) -> str:
    """Take in one image as its blocks come; return its sha256.

    It is there whole or not at all, unless the power fails before `flush`.

    Args:
        blocks: of its bytes.
        unwanted: sha256s of images that are not kept.
        keep: whether any is.

    Raises:
        OSError: if the disk is full, or whatever else goes wrong with it.

    """
    hasher, temporary = hashlib.sha256(), STORE / f".image.{uuid.uuid4().hex}.tmp"
    if not keep:
        for block in blocks:
            hasher.update(block)
        return hasher.hexdigest()
    STORE.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as stream:
            for block in blocks:
                hasher.update(block)
                stream.write(block)
        sha256 = hasher.hexdigest()
        if sha256 not in unwanted:
            path = Path(stored_path(sha256))
            path.parent.mkdir(exist_ok=True)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return sha256


def tidy() -> None:
    """Remove what killed processes left and no living one writes."""
    for left in STORE.glob(".image.*.tmp"):
        remove_if_stale(left)


def flush() -> None:
    """Wait until the disk has all that was put here: once for thousands of images instead of once for each."""
    os.sync()


def remove(sha256: Iterable[str], *, dry: bool = False) -> list[Path]:
    """Remove images; return the files that they were in, or would be."""
    paths = [path for one in sha256 if (path := Path(stored_path(one))).is_file()]
    for path in () if dry else paths:
        path.unlink(missing_ok=True)
    return paths
