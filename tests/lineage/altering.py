"""Alter files for a while, and audit them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core import params
from pipeline.lineage.audit.audit import audit


def found(*, quick: bool = False) -> list[str]:
    """Return the paths of all findings."""
    return [finding.place for finding in audit(params.load(), quick=quick).findings]


@contextmanager
def altered(name: str, alter: Callable[[bytes], bytes]) -> Iterator[None]:
    """Change a file's bytes, and put its times and mode back as if nothing had been."""
    path = Path(name)
    good, before = path.read_bytes(), path.stat()
    path.chmod(0o644)
    try:
        for content in (alter(good), good):
            path.write_bytes(content)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            if content is not good:
                yield
    finally:
        path.write_bytes(good)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        path.chmod(before.st_mode)
