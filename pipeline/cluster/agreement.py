"""Workers must agree with their driver on all that decides numbers, before any of their work counts."""

import os
import platform
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pipeline.core import environment, stamps
from pipeline.core.errors import PipelineError, StateError, first_five, one_line

Identity = Mapping[str, str]
"""What must be the same everywhere, by name."""
Identify = Callable[[], Identity]

CODE = "headswap's code"
PATIENCE = 60.0
"""Seconds for workers to answer: they import their libraries and load weights first."""

_agreed = set[str]()
"""The agreements that this process is known to keep."""


@dataclass(frozen=True)
class Agreement:
    """What a driver found at its own place, and how a worker finds the same or something else at its."""

    identify: Identify
    here: Identity
    number: str = field(default_factory=lambda: uuid.uuid4().hex)

    def require(self) -> None:
        """Raise StateError unless this worker keeps it, once per process: it may have joined after all were asked."""
        if self.number in _agreed:
            return
        try:
            differences = list(_differences(self.here, self.identify()))
        except PipelineError as error:
            differences = list(error.problems)
        if differences:
            raise StateError(*first_five([f"worker {worker()}: {one}" for one in differences], "differences"))
        _agreed.add(self.number)


def worker() -> str:
    """Return what this process is called where several compute."""
    return f"{platform.node()}:{os.getpid()}"


def question() -> Callable[[], bool]:
    """Return a function that says whether Headswap is installed where it is called."""

    def installed() -> bool:  # inside another, so that it travels as code and not as a name that must be imported
        from importlib.util import find_spec  # noqa: PLC0415

        try:
            return find_spec("pipeline.cluster") is not None
        except ModuleNotFoundError:
            return False

    return installed


def problems(here: Identity, answer: object) -> Iterator[str]:
    """Yield what is wrong with a worker's answer: its identity, whether Headswap is there, or an error."""
    if answer is False:
        yield "headswap is not installed there: install this very commit in its environment"
    elif isinstance(answer, PipelineError):
        yield from answer.problems
    elif isinstance(answer, TimeoutError):
        yield str(answer) or f"no answer within {PATIENCE:.0f} s; is it busy with other work?"
    elif isinstance(answer, BaseException):
        yield f"{type(answer).__name__}: {one_line(answer)}"
    elif isinstance(answer, Mapping):
        yield from _differences(here, answer)
    elif answer is not True:
        yield f"answered {answer!r}"


def _differences(here: Identity, there: Identity) -> Iterator[str]:
    for name, expected in here.items():
        if (got := there.get(name)) != expected:
            hint = "; restart it if it began before the code changed" if name == CODE else ""
            yield f"{name}: got {got!r}, expected {expected!r} as on the driver{hint}"


def software(libraries: Collection[str]) -> dict[str, str]:
    """Return the versions of Python and some libraries, and the sha256 of Headswap's own code."""
    versions = environment.versions()
    return {
        CODE: _code(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        **{name: versions.get(name, "none") for name in libraries},
    }


@cache  # what a process has imported stays, whatever its files become
def _code() -> str:
    folder = Path(__file__).parents[1]
    files = {path.relative_to(folder).as_posix(): stamps.sha256_file(path) for path in folder.rglob("*.py")}
    return stamps.sha256_json(files)[:12]
