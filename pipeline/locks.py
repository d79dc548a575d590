"""dvc.lock, now and at any commit, and the objects in DVC's cache that it speaks of; nothing here trusts either."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline import git, stamps
from pipeline.errors import StateError

LOCK = Path("dvc.lock")
FOLDER_SUFFIX = ".dir"
"""Of the md5 of a folder, which is that of DVC's list of its files."""


@dataclass(frozen=True)
class Entry:
    """A file or folder as a stage read or wrote it."""

    path: str
    md5: str
    size: int
    nfiles: int | None = None
    """Of a folder: the number of files in it."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """What else stands there, besides that the hash is an md5."""


@dataclass(frozen=True)
class Locked:
    """A stage as it last ran: its command, and what it read and wrote."""

    cmd: str
    deps: Mapping[str, Entry]
    """By path."""
    params: Mapping[str, Mapping[str, Any]]
    """file -> dotted name -> value."""
    outs: Mapping[str, Entry]
    """By path."""


Lock = Mapping[str, Locked]
"""By the name of the stage."""


def read() -> Lock:
    """Read the lock in the working tree; StateError if it is missing or not what DVC writes."""
    return parse(stamps.read_bytes(LOCK), str(LOCK))


def at(commit: str) -> Lock:
    """Read the lock of a commit; empty where the commit has none."""
    content = git.file_at(commit, LOCK.as_posix())
    return {} if content is None else parse(content, f"{LOCK} of commit {commit[:10]}")


def history() -> Iterator[tuple[str, Lock]]:
    """Yield every distinct lock of the working tree and all commits, with where it stands."""
    if LOCK.exists():
        yield str(LOCK), read()
    seen = set()
    for commit in (git.text("log", "--all", "--full-history", "--format=%H", "--", str(LOCK)) or "").split():
        blob = git.text("rev-parse", "--quiet", "--verify", f"{commit}:./{LOCK}")
        if blob and blob not in seen:
            seen.add(blob)
            yield f"commit {commit[:10]}", at(commit)


def parse(content: bytes, where: str) -> Lock:
    """Parse a lock; StateError, which calls it `where`, if it is not what DVC writes."""
    try:
        return of(_loaded(content), where)
    except (YAMLError, UnicodeDecodeError, ValueError) as error:
        raise StateError(f"{where}: not what DVC writes ({' '.join(str(error).split())})") from error


def of(values: Mapping[str, Any], where: str) -> Lock:
    """Return the lock that parsed YAML stands for; StateError as `parse`."""
    try:
        return {name: _locked(stage) for name, stage in values.get("stages", {}).items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise StateError(f"{where}: not what DVC writes ({' '.join(str(error).split())})") from error


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a file with the parser that DVC uses; StateError if it is no mapping in YAML."""
    try:
        return dict(_loaded(stamps.read_bytes(path)))
    except (YAMLError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise StateError(f"{path}: not what DVC writes ({' '.join(str(error).split())})") from error


def _loaded(content: bytes) -> Any:  # noqa: ANN401  # whatever YAML can hold
    return YAML(typ="safe").load(content) or {}


def _locked(stage: Mapping[str, Any]) -> Locked:
    deps, outs = ([_entry(**one) for one in stage.get(kind, [])] for kind in ("deps", "outs"))
    return Locked(
        cmd=stage["cmd"],
        deps={entry.path: entry for entry in deps},
        params=stage.get("params", {}),
        outs={entry.path: entry for entry in outs},
    )


def _entry(path: str, md5: str, size: int, nfiles: int | None = None, **others: Any) -> Entry:  # noqa: ANN401
    unusual = {name: value for name, value in others.items() if (name, value) != ("hash", "md5")}
    return Entry(path, md5, size, nfiles, unusual)


@cache
def objects_of(root: Path) -> Path | None:
    """Return where the DVC repository in a folder keeps its objects; None outside one."""
    from dvc.exceptions import NotDvcRepoError  # noqa: PLC0415  # seconds
    from dvc.repo import Repo  # noqa: PLC0415

    try:
        with Repo(str(root)) as repository:
            return Path(repository.cache.local.path)
    except NotDvcRepoError:
        return None


def object_path(md5: str) -> Path | None:
    """Return where an object lies in this repository's DVC cache; None if it is not there."""
    objects = objects_of(Path.cwd())
    path = objects / md5[:2] / md5[2:] if objects else None
    return path if path and path.is_file() else None


def read_object(md5: str) -> bytes | None:
    """Return an object's bytes, or None if it is not there; StateError if its md5 is another: it is not parsed then."""
    path = object_path(md5)
    if path is None:
        return None
    content = stamps.read_bytes(path)
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5.removesuffix(FOLDER_SUFFIX):
        raise StateError(f"{path}: md5 is not {md5}: altered since DVC stored it; run `dvc fetch`")
    return content
