"""Hash bytes, and write and read the stamp that lies beside an artifact.

A stamp says which bytes an artifact had when its stage wrote it and which bytes it was made from; `lineage` ties the
stamps into one chain.
"""

import hashlib
import importlib.util
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

from pipeline.core.atomic import write_json
from pipeline.core.errors import InputError, StateError

# To change the stamp's layout: raise this number, and make `read` say what to rerun for the older one.
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Stamp:
    """What one stage read and wrote: project-relative POSIX path -> sha256, and free facts."""

    stage: str
    outputs: Mapping[str, str]
    inputs: Mapping[str, str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


def sha256_bytes(content: bytes) -> str:
    """Return the hexadecimal sha256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hexadecimal sha256 of a file's bytes, read in blocks; StateError if it is not there."""
    with opened(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_bytes(path: Path) -> bytes:
    """Read a regular file; StateError if it is not there."""
    with opened(path) as stream:
        return stream.read()


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file to read; anything else, such as a pipe, would block for ever."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise StateError(f"{path}: not a regular file")
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise StateError(f"{path}: cannot be read ({error.strerror}); run `dvc repro`") from error


def sha256_json(content: Any) -> str:  # noqa: ANN401  # whatever JSON can hold
    """Return the sha256 of the canonical JSON of some content (sorted keys, no white space)."""
    return sha256_bytes(canonical_json(content).encode())


def canonical_json(content: Any) -> str:  # noqa: ANN401  # whatever JSON can hold
    """Return JSON that is the same text for the same content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def locate(locator: str) -> Path:
    """Turn a locator into a path without importing anything.

    `package:<package>/<file>` lies in an installed package, `torch-hub:<file>` in torch's folder for checkpoints; all
    else is a path from the project's folder. Locators are what stamps hold, so that they are equal on all machines.
    """
    scheme, _, rest = locator.partition(":")
    if scheme == "package":
        package, _, file = rest.partition("/")
        if not package.isidentifier() or ".." in Path(file).parts:  # looking a dotted name up would import its parent
            raise InputError(f"{locator}: expected package:<top-level package>/<file inside it>")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(f"{locator}: the package is not installed: pip install {package.replace('_', '-')}")
        return Path(spec.submodule_search_locations[0]) / file
    if scheme == "torch-hub":
        cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"
        return Path(os.environ.get("TORCH_HOME", cache)).expanduser() / "hub" / "checkpoints" / rest
    return Path(locator)


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Hash files: POSIX path -> sha256."""
    return {path.as_posix(): sha256_file(path) for path in paths}


def write(path: Path, stamp: Stamp) -> None:
    """Write a stamp atomically."""
    write_json(path, asdict(stamp))


def read(path: Path) -> Stamp:
    """Read a stamp; StateError if it is missing, malformed or of another version."""
    try:
        stamp = Stamp(**json.loads(read_bytes(path)))
    except (ValueError, TypeError, RecursionError) as error:
        raise StateError(f"{path}: is not a stamp; run `dvc repro`") from error
    if not _is_well_formed(stamp):
        raise StateError(f"{path}: is not a stamp; run `dvc repro`")
    if stamp.schema_version != SCHEMA_VERSION:
        raise StateError(
            f"{path}: schema_version: got {stamp.schema_version}, expected {SCHEMA_VERSION}; run `dvc repro --force`"
        )
    return stamp


def _is_well_formed(stamp: Stamp) -> bool:
    """Return whether the fields have the types that they should: JSON may put anything there."""
    hashed_files = (stamp.outputs, stamp.inputs)
    named = all(isinstance(one, dict) and all(isinstance(sha, str) for sha in one.values()) for one in hashed_files)
    return named and isinstance(stamp.facts, dict) and isinstance(stamp.stage, str)


def check(path: Path, stamp: Stamp) -> bytes:
    """Read an artifact whose bytes must be the stamped ones; hash before parse, so that nothing altered is parsed."""
    with checked(path, stamp) as stream:
        return stream.read()


@contextmanager
def requiring_facts(path: Path) -> Iterator[None]:
    """Say of a fact that the block misses in the stamp at a path, or cannot use, what to run; StateError."""
    try:
        yield
    except (KeyError, TypeError) as error:
        raise StateError(f"{path}: lacks {error}; run `dvc repro --force`") from error


@contextmanager
def checked(path: Path, stamp: Stamp) -> Iterator[BufferedReader]:
    """Open an artifact whose bytes must be the stamped ones, hashed in blocks: a large one is not held in memory."""
    with hashed(path) as (stream, found):
        if (expected := stamp.outputs.get(path.as_posix())) != found:
            raise StateError(f"{path}: sha256: got {found}, expected {expected} as stamped; {how_to_restore(path)}")
        yield stream


def how_to_restore(path: Path) -> str:
    """Say how to get back the bytes that a stage wrote; `dvc repro` alone trusts a file's size and time."""
    from pipeline.core import artifacts  # noqa: PLC0415  # only where a file was altered

    name = path.as_posix()
    if any(one.in_git and one.is_at(name) for one in artifacts.ALL):
        return f"restore it: git checkout {path}"
    if artifacts.named(name) or any(name in (one.path, one.stamp) for one in artifacts.ALL):
        return f"delete it, then: dvc checkout {path}"
    return "restore the original, or run `dvc repro` if the change was meant"


@contextmanager
def hashed(path: Path) -> Iterator[tuple[BufferedReader, str]]:
    """Open a regular file at its beginning, with the sha256 of its bytes; StateError if it is not there."""
    with opened(path) as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        yield stream, found
