"""One measured figure, and the clone that the groups share."""

import contextlib
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.clone import Clone


@dataclass(frozen=True)
class Figure:
    """A value beside what it should be; `holds` is None where there is nothing to reach."""

    name: str
    value: float
    unit: str
    target: str = ""
    holds: bool | None = None


def at_most(name: str, value: float, unit: str, bound: float) -> Figure:
    """Return a figure that should not exceed a bound."""
    return Figure(name, value, unit, f"<= {bound:g}", value <= bound)


def at_least(name: str, value: float, unit: str, bound: float) -> Figure:
    """Return a figure that should reach a bound."""
    return Figure(name, value, unit, f">= {bound:g}", value >= bound)


def seconds(action: Callable[[], object]) -> float:
    """Return the wall seconds of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def median_seconds(action: Callable[[], object], times: int = 5) -> float:
    """Return the median wall seconds of some calls."""
    return statistics.median(seconds(action) for _ in range(times))


@dataclass(frozen=True)
class MainJob:
    """A clone in which the main job has just run from nothing, and how long that took."""

    clone: Clone
    seconds: float

    def json(self, path: str) -> Any:  # noqa: ANN401  # whatever JSON holds
        """Read a JSON file of the clone."""
        return json.loads((self.clone.root / path).read_text())


_FOLDERS = contextlib.ExitStack()


@functools.cache
def main_job() -> MainJob:
    """Run what `make run` runs, in a new clone; the groups of one invocation share it."""
    clone = Clone(Path(_FOLDERS.enter_context(tempfile.TemporaryDirectory())))

    def run() -> None:
        clone.run("headswap", "demo")
        clone.run("headswap", "doctor")
        clone.repro()

    return MainJob(clone, seconds(run))


def remove_clones() -> None:
    """Delete what the groups left on disk."""
    _FOLDERS.close()
