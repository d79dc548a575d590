"""What a killed run leaves in a repository: find it, say what it is, and mend it. No cached row is touched."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from pipeline import git, locks, processes
from pipeline.atomic import STALE_SECONDS, replacing
from pipeline.errors import StateError, first_five
from pipeline.locks import LOCK
from pipeline.params import Params
from pipeline.processes import Running

DVC = Path(".dvc")
RWLOCK, REPO_LOCK = DVC / "tmp/rwlock", DVC / "tmp/lock"
WRITTEN = ("data", "models", "predictions", "metrics", "reports", "curves", "survey", "plots", ".headswap")
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp|.*\.[0-9A-Za-z_-]{22}\.tmp")
"""What `atomic.replacing` and dvc_objects' `tmp_fname` call a file that is not yet whole."""
GRACE_SECONDS = 30
"""For a stage to finish the batch in hand."""


@dataclass(frozen=True)
class Wedge:
    """One thing that a killed run left."""

    problem: str
    mend: Callable[[], str]
    """Put it right; return what was done."""


def find(params: Params) -> Iterator[Wedge]:
    """Yield what a killed run left, each looked for only when the ones before it may have been mended."""
    yield from _orphans()
    if not processes.dvc():  # else it is at work on these: what looks broken may be half written
        yield from _lock()
        yield from _rwlock()
    yield from _temporaries(params)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep DVC out while the block mends; StateError if it is at work."""
    message = "{}: DVC is at work, so nothing was mended; wait for it, or end it and run `headswap doctor --fix` again"
    if not DVC.is_dir():
        yield
        return
    REPO_LOCK.parent.mkdir(exist_ok=True)
    lock = FileLock(REPO_LOCK, blocking=False)  # the same call that DVC's own lock makes
    try:
        lock.acquire()
    except Timeout as error:
        raise StateError(message.format(", ".join(map(str, processes.holders(REPO_LOCK))) or REPO_LOCK)) from error
    try:
        if running := processes.dvc():  # it lets go of its lock while a stage runs
            raise StateError(message.format(", ".join(map(str, running))))
        yield
    finally:
        lock.release()


def _orphans() -> Iterator[Wedge]:
    for one in processes.stages():
        if one.orphan:
            yield Wedge(f"{one}: runs on although the `dvc repro` that started it is gone", partial(_end, one))


def _end(running: Running) -> str:
    """Ask a stage to end, and whatever is left of it after a while not at all politely."""
    named = str(running)
    try:
        family = [running.process, *running.process.children(recursive=True)]
        running.process.terminate()
    except psutil.NoSuchProcess:
        return f"{named}: ended by itself"
    until = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < until and not _has_ended(running.process):
        time.sleep(0.05)
    killed = not _has_ended(running.process)
    for process in family:
        if not _has_ended(process):
            process.kill()
    return f"{named}: {f'killed after {GRACE_SECONDS} s' if killed else 'ended'}; what it had finished is kept"


def _has_ended(process: psutil.Process) -> bool:
    """Return whether a process is gone, or only waits for someone to take note."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _lock() -> Iterator[Wedge]:
    if LOCK.is_file() and (wrong := _wrong_with(LOCK.read_bytes())):
        yield Wedge(f"{LOCK}: {wrong}", partial(_restore, wrong))


def _wrong_with(content: bytes) -> str | None:
    """Say why DVC or the lineage could not read a lock."""
    if not content.strip():
        return "empty, as a killed `dvc repro` leaves it"
    if re.search(rb"^<<<<<<< ", content, re.MULTILINE):
        return "holds a merge conflict"
    try:
        locks.parse(content, "cut short or altered")
    except StateError as error:
        return str(error)
    return _refused_by_dvc(content)


def _refused_by_dvc(content: bytes) -> str | None:
    from dvc.exceptions import DvcException  # noqa: PLC0415  # seconds
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # noqa: PLC0415
    from dvc.utils.strictyaml import validate  # noqa: PLC0415
    from ruamel.yaml import YAML  # noqa: PLC0415

    try:
        validate(YAML(typ="safe").load(content), COMPILED_LOCKFILE_SCHEMA, content.decode())
    except DvcException as error:
        return f"cut short or altered: DVC cannot read it ({' '.join(str(error).split())})"
    return None


def _restore(wrong: str) -> str:
    """Bring back the last commit's lock, or none: DVC then takes what it can from its run-cache."""
    committed = git.file_at("HEAD", LOCK.as_posix())
    if committed is None or _wrong_with(committed):
        LOCK.unlink()
        return f"{LOCK}: was {wrong}; removed, as no commit has a sound one; `dvc repro` brings its stages back"
    with replacing(LOCK) as temporary:
        temporary.write_bytes(committed)
    return f"{LOCK}: was {wrong}; restored as of the last commit; `dvc repro` brings later stages back"


def _rwlock() -> Iterator[Wedge]:
    if RWLOCK.is_file() and (wrong := _wrong_with_rwlock(RWLOCK.read_bytes())):
        yield Wedge(f"{RWLOCK}: {wrong}", partial(_remove, RWLOCK, wrong))


def _wrong_with_rwlock(content: bytes) -> str | None:
    """Say why DVC would stop at its list of who reads and writes what; it drops those that are gone by itself."""
    if not content.strip():
        return "empty, as a killed `dvc repro` leaves it"
    try:
        listed = json.loads(content)
        entries = [
            *listed.get("write", {}).values(),
            *(one for some in listed.get("read", {}).values() for one in some),
        ]
        pids = sorted({int(entry["pid"]) for entry in entries})
    except (ValueError, AttributeError, TypeError, KeyError):
        return "cut short or altered: DVC cannot read it"
    strangers = [pid for pid in pids if psutil.pid_exists(pid) and not processes.is_dvc(pid)]
    return f"names process {strangers[0]}, which is no DVC: a killed one's id went to another" if strangers else None


def _remove(path: Path, wrong: str) -> str:
    path.unlink(missing_ok=True)
    return f"{path}: {wrong}; removed"


def _temporaries(params: Params) -> Iterator[Wedge]:
    """Look where stages and DVC write; where a living process may write, only what nobody touched for long."""
    alive = bool(processes.stages() or processes.dvc())
    found = [path for folder in _folders(params) for path in _left_in(folder, params.data.path, alive=alive)]
    if found:
        listed = "; ".join(first_five([str(path) for path in found], "files"))
        problem = f"{len(found)} temporary files that were never finished: {listed}"
        yield Wedge(problem, partial(_remove_all, found))


def _folders(params: Params) -> Iterator[Path]:
    """Yield the outermost folders in which stages and DVC write."""
    objects = locks.objects_of(Path.cwd()) if DVC.is_dir() else None
    places = [Path(name) for name in WRITTEN] + [params.embed.cache] + ([objects.parent.parent] if objects else [])
    whole = {place.resolve(): place for place in places if place.is_dir()}
    for resolved, place in whole.items():
        if not any(above in whole for above in resolved.parents):
            yield place


def _left_in(folder: Path, images: Path, *, alive: bool) -> Iterator[Path]:
    shared = not folder.resolve().is_relative_to(Path.cwd().resolve())
    newest = time.time() - (STALE_SECONDS if alive or shared else 0)
    for above, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if Path(above, name) != images)  # the user's own, and many
        for name in sorted(files):
            path = Path(above, name)
            if TEMPORARY.fullmatch(name) and path.lstat().st_mtime <= newest:
                yield path


def _remove_all(paths: list[Path]) -> str:
    freed = sum(path.lstat().st_size for path in paths)
    for path in paths:
        path.unlink(missing_ok=True)
    return f"{len(paths)} temporary files that were never finished, {freed / 1e6:.1f} MB: removed"
