"""What else runs in this repository, and a lock that no dead process can keep."""

import itertools
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import psutil
from filelock import FileLock, Timeout

from pipeline.core.errors import StateError
from pipeline.core.verbs import STAGES, VERBS

T = TypeVar("T")

EMBED_LOCK = Path(".headswap/embed.lock")
"""Held by the one `embed`, `predict` or `forget` at work in a repository.

A second one would repeat its rows, or put them back.
"""
STARTED_BY_DVC = "DVC_STAGE"
"""Stands in the environment of what DVC runs, and of whatever that starts."""


@dataclass(frozen=True)
class Running:
    """A process of this repository."""

    process: psutil.Process
    orphan: bool = False
    """Started by a DVC that is gone."""

    def __str__(self) -> str:
        """Name it as a person would look for it: its id, command and age."""
        try:
            since = datetime.fromtimestamp(self.process.create_time()).astimezone()
            command = _readable(self.process.cmdline())
        except psutil.Error:
            return f"process {self.process.pid} (just ended)"
        return f"process {self.process.pid} (`{command}`, since {since:%Y-%m-%d %H:%M:%S})"


def stages() -> list[Running]:
    """Return the stages that run in this repository, without the processes that those have started."""
    return _commands(STAGES)


def commands() -> list[Running]:
    """Return all that `headswap` does in this repository, as `stages`, but for what has started this process."""
    mine = {parent.pid for parent in _asked(psutil.Process().parents)}
    return [one for one in _commands(VERBS) if one.process.pid not in mine]


def _commands(names: Collection[str]) -> list[Running]:
    found = {one.pid: one for one in _inside() if _is_command(_asked(one.cmdline), names)}
    above = {pid: _asked(one.parents) for pid, one in found.items()}
    return [
        Running(one, _is_orphan(one, above[pid]))
        for pid, one in sorted(found.items())
        if not any(parent.pid in found for parent in above[pid])
    ]


def dvc() -> list[Running]:
    """Return the `dvc` commands that run in this repository."""
    return [Running(one) for one in _inside() if _is_dvc(_asked(one.cmdline))]


def holders(path: Path) -> list[Running]:
    """Return the processes of this repository that have a file open."""
    wanted = str(path.resolve())
    return [Running(one) for one in _inside() if wanted in [file.path for file in _asked(one.open_files)]]


@contextmanager
def alone(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock for as long as the block lasts; the operating system releases it when its process ends, however so.

    Raises:
        StateError: if another process holds it; the line names that process.

    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock, blocking=False)  # its descriptor is closed in children, which could keep it otherwise
    try:
        held.acquire()
    except Timeout as error:
        others = holders(lock)
        named = ", ".join(map(str, others)) or f"the holder of {lock}"
        ended = " ".join(["kill", *(str(one.process.pid) for one in others)]) if others else "end it"
        raise StateError(
            f"{what} is at work in this repository already: {named}; wait for it, or {ended} (what it has finished is "
            "kept)"
        ) from error
    try:
        yield
    finally:
        held.release()


def _inside() -> Iterator[psutil.Process]:
    """Yield the processes whose folder is in this repository and in no other one below it."""
    root = Path.cwd().resolve()
    for process in psutil.process_iter():
        try:
            folder = Path(process.cwd())
            if process.pid != os.getpid() and folder.is_relative_to(root) and _repository_of(folder, root) == root:
                yield process
        except psutil.Error:  # another user's, or it has just ended
            continue


def _repository_of(folder: Path, root: Path) -> Path:
    return next((one for one in (folder, *folder.parents) if one == root or (one / ".dvc").is_dir()), root)


def _is_command(command: list[str], names: Collection[str]) -> bool:
    """Recognise `headswap NAME`, also when Python's name stands before it, and `-m pipeline NAME`."""
    for position, (word, following) in enumerate(itertools.pairwise(command)):
        named = position < 2 and Path(word).name == "headswap"
        module = word == "pipeline" and position > 0 and command[position - 1] == "-m"
        if (named or module) and following in names:
            return True
    return False


def _is_dvc(command: list[str]) -> bool:
    """Recognise `dvc ...`; its `daemon`, which only asks for news, is none."""
    named = any(Path(word).name == "dvc" for word in command[:2]) or command[1:3] == ["-m", "dvc"]
    return named and "daemon" not in command


def _is_orphan(process: psutil.Process, above: list[psutil.Process]) -> bool:
    """Return whether DVC started a process and is gone; it would be in the same session, unlike who adopts orphans."""
    if not _has_stage(process) or any(_is_dvc(_asked(one.cmdline)) for one in above):
        return False
    starter = next((one.pid for one in above if not _has_stage(one)), 1)
    try:
        return starter == 1 or os.getsid(starter) != os.getsid(process.pid)
    except OSError:  # it has just ended
        return False


def _has_stage(process: psutil.Process) -> bool:
    return STARTED_BY_DVC in _asked(lambda: list(process.environ()))


def _asked(question: Callable[[], list[T]]) -> list[T]:
    """Ask a process; nothing is known of one that has just ended, or is another user's."""
    try:
        return question()
    except psutil.Error:
        return []


def _readable(command: list[str]) -> str:
    """Drop the interpreter and the folders, which say nothing to a person."""
    words = command[1:] if len(command) > 1 and Path(command[0]).name.startswith("python") else command
    return " ".join([Path(words[0]).name, *words[1:]]) if words else "?"
