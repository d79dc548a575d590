"""What a killed run leaves in a repository: find it, describe it, and mend it. No cached row is touched."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from pipeline.core import git, locks, processes
from pipeline.core.artifacts import FOLDERS
from pipeline.core.atomic import STALE_SECONDS, replacing, still_there
from pipeline.core.errors import StateError, first_five, one_line
from pipeline.core.locks import LOCK
from pipeline.core.params import Params
from pipeline.core.processes import Running

DVC = Path(".dvc")
RWLOCK, REPO_LOCK = DVC / "tmp/rwlock", DVC / "tmp/lock"
WRITTEN = (*FOLDERS, ".headswap")
OURS, DVCS = re.compile(r"\..+\.[0-9a-f]{32}\.tmp"), re.compile(r".*\.[0-9A-Za-z_-]{22}\.tmp")
"""Names of unfinished files: of `atomic.replacing`, and of dvc_objects' `tmp_fname` in DVC's cache."""
CONFLICT = re.compile(rb"^<<<<<<< ", re.MULTILINE)
GRACE_SECONDS = 30
"""Seconds for a stage to finish its batch."""


@dataclass(frozen=True)
class Leftover:
    """One thing that a killed run left."""

    problem: str
    mend: Callable[[], str] | None = None
    """Mends it and returns what was done; None if only a person can."""


def find(params: Params) -> Iterator[Leftover]:
    """Yield what a killed run left; mend each before the next is looked for."""
    yield from _orphans()
    if not processes.dvc():  # a running DVC may be writing these
        yield from _lock()
        yield from _rwlock()
    yield from _temporaries(params)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep DVC from starting during the block; StateError if it is running."""
    message = "{}: DVC is at work, so nothing was mended; wait for it, or end it and run `headswap doctor --fix` again"
    if not DVC.is_dir():
        yield
        return
    REPO_LOCK.parent.mkdir(exist_ok=True)
    lock = FileLock(REPO_LOCK, blocking=False)  # the lock that DVC uses
    try:
        lock.acquire()
    except Timeout as error:
        raise StateError(message.format(", ".join(map(str, processes.holders(REPO_LOCK))) or REPO_LOCK)) from error
    try:
        if running := processes.dvc():  # it releases its lock while a stage runs
            raise StateError(message.format(", ".join(map(str, running))))
        yield
    finally:
        lock.release()


def _orphans() -> Iterator[Leftover]:
    for one in processes.stages():
        if one.orphan:
            yield Leftover(f"{one}: still runs, although the `dvc repro` that started it is gone", partial(_end, one))


def _end(running: Running) -> str:
    """Terminate a stage, and after a while kill it and its children."""
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
    """Return whether a process is gone, or a zombie."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _lock() -> Iterator[Leftover]:
    committed = _committed()
    if not LOCK.exists() and committed is not None and not _problem_of(committed):
        yield Leftover(f"{LOCK}: missing, although the last commit has one", partial(_restore, "missing"))
    if (content := _content(LOCK)) is None:
        return
    if CONFLICT.search(content):  # both sides hold work
        yield Leftover(
            f"{LOCK}: holds a merge conflict; resolve it by hand, or take one side: `git checkout --ours {LOCK}` or "
            f"`git checkout --theirs {LOCK}`; then run `dvc repro`"
        )
    elif problem := _problem_of(content):
        yield Leftover(f"{LOCK}: {problem}", partial(_restore, problem))


def _committed() -> bytes | None:
    """Return the last commit's lock; None if it has none, or the lock was removed from git since."""
    return git.file_at("HEAD", LOCK.as_posix()) if git.text("ls-files", "--", LOCK.as_posix()) else None


def _content(path: Path) -> bytes | None:
    """Return a file's bytes; None if there is no such file."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return None


def _problem_of(content: bytes) -> str | None:
    """Say why DVC or the lineage cannot read a lock; None if they can."""
    if not content.strip():
        return "empty, as a killed `dvc repro` leaves it"
    try:
        locks.parse(content, "cut short or altered")
    except StateError as error:
        return str(error)
    return _dvc_problem_of(content)


def _dvc_problem_of(content: bytes) -> str | None:
    from dvc.exceptions import DvcException  # noqa: PLC0415  # seconds
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # noqa: PLC0415
    from dvc.utils.strictyaml import validate  # noqa: PLC0415
    from ruamel.yaml import YAML  # noqa: PLC0415

    try:
        validate(YAML(typ="safe").load(content), COMPILED_LOCKFILE_SCHEMA, content.decode())
    except DvcException as error:
        return f"cut short or altered: DVC cannot read it ({one_line(error)})"
    return None


def _restore(problem: str) -> str:
    """Restore the last commit's lock, or remove it: DVC then takes what it can from its run-cache."""
    committed = _committed()
    if committed is None or _problem_of(committed):
        LOCK.unlink()
        return f"{LOCK}: was {problem}; removed, as git has no usable one; `dvc repro` brings its stages back"
    with replacing(LOCK) as temporary:
        temporary.write_bytes(committed)
    return f"{LOCK}: was {problem}; restored as of the last commit; `dvc repro` brings later stages back"


def at_work() -> list[Running]:
    """Return the processes at work in this repository, and those in DVC's list of readers and writers."""
    content = _content(RWLOCK)
    pids = None if content is None else _pids(content)
    named = [Running(one) for one in _processes(pids or []) if not _is_reused(one)]
    found: dict[int, Running] = {}
    for one in (*processes.dvc(), *processes.commands(), *named):
        found.setdefault(one.process.pid, one)
    return list(found.values())


def _rwlock() -> Iterator[Leftover]:
    content = _content(RWLOCK)
    if content is not None and (problem := _problem_of_rwlock(content)):
        yield Leftover(f"{RWLOCK}: {problem}", partial(_remove, RWLOCK, problem))


def _problem_of_rwlock(content: bytes) -> str | None:
    """Say why DVC would stop at its list of readers and writers; it drops ended processes from it by itself."""
    if not content.strip():
        return "empty, as a killed `dvc repro` leaves it"
    if (pids := _pids(content)) is None:
        return "cut short or altered: DVC cannot read it"
    living = list(_processes(pids))
    if not living or not all(map(_is_reused, living)):  # a live process, such as a script that uses DVC, needs it
        return None
    return f"names process {living[0].pid}, which did not write it: it has ended, or got the id of a killed process"


def _pids(content: bytes) -> list[int] | None:
    """Return the process ids in a list of readers and writers; None if DVC cannot read it."""
    try:
        listed = json.loads(content)
        readers = [one for some in listed.get("read", {}).values() for one in some]
        return sorted({int(entry["pid"]) for entry in (*listed.get("write", {}).values(), *readers)})
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return None


def _processes(pids: list[int]) -> Iterator[psutil.Process]:
    """Yield the processes that exist."""
    for pid in pids:
        with suppress(psutil.NoSuchProcess, ValueError):  # ValueError for numbers that are no id
            yield psutil.Process(pid)


def _is_reused(process: psutil.Process) -> bool:
    """Return whether a process began after the list of readers and writers was written, or has ended."""
    try:
        return _has_ended(process) or process.create_time() > RWLOCK.stat().st_mtime
    except (psutil.NoSuchProcess, FileNotFoundError):
        return True


def _remove(path: Path, problem: str) -> str:
    path.unlink(missing_ok=True)
    return f"{path}: {problem}; removed"


def _temporaries(params: Params) -> Iterator[Leftover]:
    """Yield unfinished files of `headswap` and DVC; where a live process may write, only old ones."""
    alive = bool(processes.commands() or processes.dvc())
    places, images = _places(params), params.data.path.resolve()  # the user's files, and many
    found = sorted(
        path
        for place, pattern in places.items()
        if place != images
        for path in _left_in(place, pattern, {*places, images}, alive=alive)
    )
    if found:
        listed = "; ".join(first_five([locks.shown(path) for path in found], "files"))
        problem = f"{len(found)} unfinished temporary files: {listed}"
        yield Leftover(problem, partial(_remove_all, found))


def _places(params: Params) -> dict[Path, re.Pattern[str]]:
    """Return the folders in which `headswap` and DVC write, each with the pattern of its unfinished files."""
    places = {place.resolve(): OURS for place in (*map(Path, WRITTEN), params.embed.cache)}
    if objects := _objects():
        places[objects.parent.parent.resolve()] = DVCS
    return {place: pattern for place, pattern in places.items() if place.is_dir()}


def _objects() -> Path | None:
    try:
        return locks.objects_of(Path.cwd()) if DVC.is_dir() else None
    except StateError:  # the check of the settings reports it
        return None


def _left_in(folder: Path, pattern: re.Pattern[str], others: set[Path], *, alive: bool) -> Iterator[Path]:
    shared = not folder.is_relative_to(Path.cwd().resolve())
    newest = time.time() - (STALE_SECONDS if alive or shared else 0)
    for above, names, files in os.walk(folder):
        names[:] = [name for name in names if Path(above, name).resolve() not in others]
        for path, looks in still_there(Path(above, name) for name in files if pattern.fullmatch(name)):
            if looks.st_mtime <= newest:
                yield path


def _remove_all(paths: list[Path]) -> str:
    freed = sum(looks.st_size for _, looks in still_there(paths))
    for path in paths:
        path.unlink(missing_ok=True)
    return f"{len(paths)} unfinished temporary files, {freed / 1e6:.1f} MB: removed"
