"""dvc.lock, now and at any commit, and the objects in DVC's cache that it speaks of; nothing here trusts either."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.core import git, stamps
from pipeline.core.errors import StateError, one_line

Kind = TypeVar("Kind")

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


def history() -> Iterator[tuple[str, Lock | None]]:
    """Yield every distinct lock of the working tree and all commits, with where it stands.

    None stands for a commit's lock that is not what DVC writes, so that nobody can say what it lists: history cannot be
    mended. That of the working tree can: StateError as `read`.
    """
    if LOCK.exists():
        yield str(LOCK), read()
    seen = set[str]()
    for commit in (git.text("log", "--all", "--full-history", "--format=%H", "--", str(LOCK)) or "").split():
        blob = git.text("rev-parse", "--quiet", "--verify", f"{commit}:./{LOCK}")
        if blob and blob not in seen:
            seen.add(blob)
            yield f"commit {commit[:10]}", _of_blob(blob)


@cache  # what a blob holds never changes
def _of_blob(blob: str) -> Lock | None:
    try:
        return parse(git.run("cat-file", "blob", blob) or b"", blob)
    except StateError:
        return None


def parse(content: bytes, where: str) -> Lock:
    """Parse a lock; StateError, which calls it `where`, if it is not what DVC writes."""
    return of(_loaded(content, where), where)


def of(values: Any, where: str) -> Lock:  # noqa: ANN401  # whatever YAML can hold
    """Return the lock that parsed YAML stands for; StateError as `parse`. An empty file is no lock to DVC either."""
    try:
        stages = _stages(_checked(values, Mapping, "the whole"))
        return {_checked(name, str, "a stage's name"): _locked(stage, f"{name}:") for name, stage in stages.items()}
    except (TypeError, ValueError, RecursionError) as error:
        _refuse(where, error)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a file with the parser that DVC uses; StateError if it is no mapping in YAML."""
    try:
        return dict(_checked(_loaded(stamps.read_bytes(path), str(path)), Mapping, "the whole"))
    except TypeError as error:
        _refuse(str(path), error)


def _loaded(content: bytes, where: str) -> Any:  # noqa: ANN401  # whatever YAML can hold
    try:
        values = YAML(typ="safe").load(content)
    except (YAMLError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:  # of odd tags, too
        _refuse(where, error)
    return {} if values is None else values


def _refuse(where: str, error: Exception) -> NoReturn:
    raise StateError(f"{where}: not what DVC writes ({one_line(error)})") from error


def _stages(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    if not content or not content.keys() <= {"schema", "stages", "datasets"}:
        raise ValueError(f"the whole: got {', '.join(map(str, content)) or 'nothing'}, expected schema and stages")
    return _checked(content.get("stages", {}), Mapping, "stages")


def _locked(stage: Any, where: str) -> Locked:  # noqa: ANN401
    content = _checked(stage, Mapping, where)
    for file, values in _checked(params := content.get("params", {}), Mapping, f"{where} params").items():
        _checked(file, str, f"{where} params: a file")
        for key in _checked(values, Mapping, f"{where} params: {file}"):
            _checked(key, str, f"{where} params: {file}: a name")
    json.dumps(params, sort_keys=True)  # TypeError for what only YAML can hold, such as a date
    deps, outs = (
        [_entry(one, f"{where} {kind}:") for one in _checked(content.get(kind, []), list, f"{where} {kind}")]
        for kind in ("deps", "outs")
    )
    return Locked(
        cmd=_cmd(content.get("cmd"), f"{where} cmd"),
        deps={entry.path: entry for entry in deps},
        params=params,
        outs={entry.path: entry for entry in outs},
    )


def _cmd(value: Any, where: str) -> Any:  # noqa: ANN401
    for one in value if isinstance(value, list) else [value]:  # DVC also takes one command after the other
        _checked(one, str, where)
    return value


def _entry(entry: Any, where: str) -> Entry:  # noqa: ANN401
    content = dict(_checked(entry, Mapping, where))
    path = _checked(content.pop("path", None), str, f"{where} path")
    md5 = _checked(content.pop("md5", None), str, f"{where} {path}: md5")
    if not re.fullmatch(rf"[0-9a-f]{{32}}({re.escape(FOLDER_SUFFIX)})?", md5):
        raise ValueError(f"{where} {path}: md5: got {md5!r}")
    size = _checked(content.pop("size", None), int, f"{where} {path}: size")
    nfiles = _checked(content.pop("nfiles", None), (int, type(None)), f"{where} {path}: nfiles")
    for name in content:
        _checked(name, str, f"{where} {path}: a key")
    return Entry(
        path, md5, size, nfiles, {name: one for name, one in content.items() if (name, one) != ("hash", "md5")}
    )


def _checked(value: Any, kind: type[Kind] | tuple[type[Kind], ...], what: str) -> Kind:  # noqa: ANN401
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{what}: got {type(value).__name__}")
    return value


@contextmanager
def repository(root: Path) -> Iterator[Any]:
    """Open the DVC repository in a folder; yield None outside one.

    Raises:
        StateError: if its settings are not what DVC can read.

    """
    from dvc.exceptions import DvcException, NotDvcRepoError  # noqa: PLC0415  # half a second
    from dvc.repo import Repo  # noqa: PLC0415

    try:
        opened = Repo(str(root))
    except NotDvcRepoError:
        yield None
        return
    except (DvcException, UnicodeDecodeError) as error:
        raise StateError(f".dvc: DVC cannot open this repository ({one_line(error)})") from error
    with opened:
        yield opened


@cache
def objects_of(root: Path) -> Path | None:
    """Return where the DVC repository in a folder keeps its objects; None outside one. StateError as `repository`."""
    with repository(root) as opened:
        return Path(opened.cache.local.path) if opened else None


def md5_of(content: bytes) -> str:
    """Return the md5 of some bytes, by which DVC names them; it proves nothing against someone who means harm."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def shown(path: Path) -> str:
    """Return a path as it is told to people: from the project's folder, or in full if it lies elsewhere."""
    return (path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path).as_posix()


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
    if md5_of(content) != md5.removesuffix(FOLDER_SUFFIX):
        raise StateError(f"{path}: md5 is not {md5}: altered since DVC stored it; run `dvc fetch`")
    return content


def folder_files(md5: str) -> dict[str, str]:
    """Return the files that a folder's object lists: path within -> md5; empty unless it is there and unaltered."""
    try:
        return {str(file["relpath"]): str(file["md5"]) for file in json.loads(read_object(md5) or b"[]")}
    except (StateError, ValueError, KeyError, TypeError, RecursionError):
        return {}
