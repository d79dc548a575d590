"""Workers must agree with the driver on all that decides numbers, before any work begins."""

import platform
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from pipeline import environment, stamps
from pipeline.engines.elsewhere import Elsewhere
from pipeline.errors import PipelineError, StateError, first_five

Identity = Mapping[str, str]
"""What must be the same everywhere, by name."""
Identify = Callable[[], Identity]

PATIENCE = 60.0
"""Seconds for workers to answer: they import their libraries and load weights first."""


def require(cluster: Elsewhere, identify: Identify) -> None:
    """Ask here and everywhere; StateError if there are no workers, or with a line for all that differs at one."""
    here = identify()
    answers = cluster.ask(_installed(), PATIENCE)
    if not answers:
        raise StateError(f"{cluster.where}: has no workers; start some")
    if all(answer is True for answer in answers.values()):  # a worker of Dask's does not survive what it cannot read
        answers = cluster.ask(identify, PATIENCE)
    problems = [
        f"{cluster.where}: worker {name}: {problem}"
        for name, answer in answers.items()
        for problem in _problems(here, answer)
    ]
    if problems:
        raise StateError(*first_five(problems, "differences"))


def _installed() -> Callable[[], bool]:
    def installed() -> bool:  # inside a function, so that it travels as code and not as the name of a module
        from importlib.util import find_spec  # noqa: PLC0415

        try:
            return find_spec("pipeline.engines") is not None
        except ModuleNotFoundError:
            return False

    return installed


def software(libraries: Collection[str]) -> dict[str, str]:
    """Return the versions of Python and some libraries, and the sha256 of Headswap's own code."""
    folder = Path(__file__).parents[1]
    code = {path.relative_to(folder).as_posix(): stamps.sha256_file(path) for path in folder.rglob("*.py")}
    versions = environment.versions()
    return {
        "headswap's code": stamps.sha256_json(code)[:12],
        "python": ".".join(platform.python_version_tuple()[:2]),
        **{name: versions.get(name, "none") for name in libraries},
    }


def _problems(here: Identity, answer: object) -> Iterator[str]:
    """Yield what is wrong with an answer: an identity, whether Headswap is installed, or what went wrong."""
    if answer is False:
        yield "headswap is not installed there: install this very commit in its environment"
    elif isinstance(answer, PipelineError):
        yield from answer.problems
    elif isinstance(answer, TimeoutError):
        yield f"no answer within {PATIENCE:.0f} s; is it busy with other work?"
    elif isinstance(answer, BaseException):
        yield f"{type(answer).__name__}: {' '.join(str(answer).split())[:200]}"
    elif isinstance(answer, Mapping):
        for name, expected in here.items():
            if (got := answer.get(name)) != expected:
                yield f"{name}: got {got!r}, expected {expected!r} as here"
