"""Hash many files at once, each read in full: sizes and times of files can be made up, bytes cannot."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tqdm import tqdm

from pipeline.core import stamps
from pipeline.core.errors import PipelineError
from pipeline.core.mismatches import Mismatch

BLOCK = 1 << 20
MISSING = "no readable file"


@dataclass(frozen=True)
class Promise:
    """What some record says of a file's bytes."""

    locator: str
    """As `stamps.locate` reads it."""
    algorithm: str
    """sha256, or md5 where DVC is the one that promises."""
    digest: str
    by: str
    """The record."""


@dataclass(frozen=True)
class Contents:
    """The digests that were found, and how many bytes lay behind them."""

    digests: Mapping[tuple[str, str], str | None]
    """(locator, algorithm) -> digest; None where there is no readable file."""
    files: int
    bytes: int

    def broken(self, promises: Iterable[Promise]) -> list[Mismatch]:
        """Return one finding for every file that is not what some record says, sorted by its path."""
        failed: dict[str, list[Promise]] = defaultdict(list)
        for promise in promises:
            if self.digests[promise.locator, promise.algorithm] != promise.digest:
                failed[promise.locator].append(promise)
        return sorted(self._finding(locator, broken) for locator, broken in failed.items())

    def sha256s(self) -> dict[str, str]:
        """Return the sha256 of every file that one was taken of."""
        return {name: found for (name, algorithm), found in self.digests.items() if found and algorithm == "sha256"}

    def _finding(self, locator: str, broken: list[Promise]) -> Mismatch:
        """Word the strongest of the promises that a file breaks, and name all who made it."""
        strongest = max(broken, key=lambda promise: promise.algorithm == "sha256")
        alike = [one.by for one in broken if (one.algorithm, one.digest) == (strongest.algorithm, strongest.digest)]
        found = self.digests[locator, strongest.algorithm]
        expected = f"{strongest.algorithm} {strongest.digest} ({', '.join(dict.fromkeys(alike))})"
        return Mismatch(locator, expected, MISSING if found is None else f"{strongest.algorithm} {found}")


def read(wanted: Iterable[tuple[str, str]]) -> Contents:
    """Hash (locator, algorithm) pairs on all cores; a large file's algorithms run beside each other."""
    pairs = list(dict.fromkeys(wanted))
    sizes = {locator: _size(locator) for locator, _ in pairs}
    total = sum(sizes[locator] for locator, _ in pairs)
    bar = tqdm(total=total, desc="audit", unit="B", unit_scale=True, disable=None)
    with bar, ThreadPoolExecutor() as pool:  # hashlib and reading release the interpreter's lock
        found = pool.map(lambda pair: digest(pair[0], pair[1], bar.update), pairs)
        return Contents(dict(zip(pairs, found, strict=True)), len(sizes), sum(sizes.values()))


def digest(locator: str, algorithm: str, progress: Callable[[int], object] = id) -> str | None:
    """Return a file's digest; None if there is no readable file. `progress` is told the bytes as they are read."""
    hashing = hashlib.new(algorithm, usedforsecurity=False)
    try:
        with stamps.opened(stamps.locate(locator)) as stream:
            while block := stream.read(BLOCK):
                hashing.update(block)
                progress(len(block))
    except (PipelineError, OSError):
        return None
    return hashing.hexdigest()


def exists(locator: str) -> bool:
    """Return whether there is a file."""
    try:
        return stamps.locate(locator).is_file()
    except (PipelineError, OSError):
        return False


def _size(locator: str) -> int:
    try:
        return stamps.locate(locator).stat().st_size
    except (PipelineError, OSError):
        return 0
