"""Hash many files at once, each read in full: a file's size and time can be faked, its bytes cannot."""

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
class Checksum:
    """The digest that a file has according to some record."""

    locator: str
    """As `stamps.locate` reads it."""
    algorithm: str
    """sha256, or md5 in DVC's records."""
    digest: str
    record: str


@dataclass(frozen=True)
class Digests:
    """The digests that files have now, and how many bytes were read for them."""

    found: Mapping[tuple[str, str], str | None]
    """(locator, algorithm) -> digest; None where there is no readable file."""
    files: int
    bytes: int

    def mismatches(self, checksums: Iterable[Checksum]) -> list[Mismatch]:
        """Return one mismatch for every file that some record contradicts, sorted by path."""
        failed: dict[str, list[Checksum]] = defaultdict(list)
        for checksum in checksums:
            if self.found[checksum.locator, checksum.algorithm] != checksum.digest:
                failed[checksum.locator].append(checksum)
        return sorted(self._mismatch(locator, some) for locator, some in failed.items())

    def sha256s(self) -> dict[str, str]:
        """Return the sha256 of every file whose sha256 was computed."""
        return {name: digest for (name, algorithm), digest in self.found.items() if digest and algorithm == "sha256"}

    def _mismatch(self, locator: str, failed: list[Checksum]) -> Mismatch:
        """Describe the strongest of a file's failed checksums, and name all records that hold it."""
        strongest = max(failed, key=lambda checksum: checksum.algorithm == "sha256")
        same = [one.record for one in failed if (one.algorithm, one.digest) == (strongest.algorithm, strongest.digest)]
        digest = self.found[locator, strongest.algorithm]
        expected = f"{strongest.algorithm} {strongest.digest} ({', '.join(dict.fromkeys(same))})"
        return Mismatch(locator, expected, MISSING if digest is None else f"{strongest.algorithm} {digest}")


def read(wanted: Iterable[tuple[str, str]]) -> Digests:
    """Hash (locator, algorithm) pairs on all cores, two algorithms of one large file side by side."""
    pairs = list(dict.fromkeys(wanted))
    sizes = {locator: _size(locator) for locator, _ in pairs}
    total = sum(sizes[locator] for locator, _ in pairs)
    bar = tqdm(total=total, desc="hash", unit="B", unit_scale=True, disable=None)
    with bar, ThreadPoolExecutor() as pool:  # hashlib and reading release the interpreter's lock
        found = pool.map(lambda pair: digest(pair[0], pair[1], bar.update), pairs)
        return Digests(dict(zip(pairs, found, strict=True)), len(sizes), sum(sizes.values()))


def digest(locator: str, algorithm: str, progress: Callable[[int], object] = id) -> str | None:
    """Return a file's digest; None if there is no readable file. `progress` gets the size of each block."""
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
    """Return whether there is such a file."""
    try:
        return stamps.locate(locator).is_file()
    except (PipelineError, OSError):
        return False


def _size(locator: str) -> int:
    try:
        return stamps.locate(locator).stat().st_size
    except (PipelineError, OSError):
        return 0
