"""What a worker does with a task: check the agreement, run it, and return the outcome."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import joblib

from pipeline.cluster import agreement
from pipeline.cluster.agreement import Agreement
from pipeline.core.errors import StateError, one_line


class Shared(NamedTuple):
    """The part of a call that all tasks share and that is sent once."""

    function: Callable[[Any], Any]
    agreement: Agreement


class Outcome(NamedTuple):
    """The result of a task, or its error."""

    result: Any = None
    error: Exception | None = None


def run(shared: Shared, task: Any) -> Outcome:  # noqa: ANN401  # whatever the function takes
    """Call a function in a worker; its own joblib calls stay in that process."""
    try:
        shared.agreement.require()
        with joblib.parallel_config("sequential"):
            return Outcome(shared.function(task))
    except Exception as error:  # noqa: BLE001  # the driver raises it, and so tells it from the engine's errors
        return Outcome(error=_picklable(error))


def _picklable(error: Exception) -> Exception:
    """Return an error, or a StateError if it cannot be pickled: Dask's backend would wait for ever."""
    try:
        return copy.deepcopy(error)  # uses the same protocol as pickle
    except Exception:  # noqa: BLE001  # whatever its class raises
        return StateError(f"worker {agreement.worker()}: {type(error).__name__}: {one_line(error)}")
