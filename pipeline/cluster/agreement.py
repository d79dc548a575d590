"""Workers must agree with their driver on everything that decides numbers, before any of their work is used."""

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
"""name -> value of what must be the same on all workers."""
Identify = Callable[[], Identity]

CODE = "headswap's code"
PATIENCE = 60.0
"""Seconds within which workers must answer; they first import libraries and load weights."""

_agreed = set[str]()
"""Numbers of the agreements that this process has been checked against."""


@dataclass(frozen=True)
class Agreement:
    """A driver's identity, and the function with which a worker finds its own."""

    identify: Identify
    here: Identity
    number: str = field(default_factory=lambda: uuid.uuid4().hex)

    def require(self) -> None:
        """Raise StateError unless this worker agrees; checked once per process, for workers that join later."""
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
    """Return the name of this process among workers."""
    return f"{platform.node()}:{os.getpid()}"


def installation_check() -> Callable[[], bool]:
    """Return a function that says whether Headswap is installed where the function runs."""

    def installed() -> bool:  # nested, so that it is pickled as code, not as a name to import
        from importlib.util import find_spec  # noqa: PLC0415

        try:
            return find_spec("pipeline.cluster") is not None
        except ModuleNotFoundError:
            return False

    return installed


def problems(here: Identity, answer: object) -> Iterator[str]:
    """Yield what is wrong with a worker's answer: its identity, whether Headswap is installed, or an error."""
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


@cache  # a process keeps the code that it imported
def _code() -> str:
    folder = Path(__file__).parents[1]
    files = {path.relative_to(folder).as_posix(): stamps.sha256_file(path) for path in folder.rglob("*.py")}
    return stamps.sha256_json(files)[:12]
