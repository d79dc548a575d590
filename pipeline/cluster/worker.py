"""A task as a worker sees it: whether it may run it, and what goes back."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import joblib

from pipeline.cluster import agreement
from pipeline.cluster.agreement import Agreement
from pipeline.core.errors import StateError, one_line


class Shared(NamedTuple):
    """What goes with every task of a call, and need be sent but once."""

    function: Callable[[Any], Any]
    agreement: Agreement


class Outcome(NamedTuple):
    """What became of a task."""

    result: Any = None
    error: Exception | None = None


def run(shared: Shared, task: Any) -> Outcome:  # noqa: ANN401  # whatever the function takes
    """Call a function in a worker; what it runs in parallel stays there, or it would send its data round."""
    try:
        shared.agreement.require()
        with joblib.parallel_config("sequential"):
            return Outcome(shared.function(task))
    except Exception as error:  # noqa: BLE001  # raised by the driver, which then knows it from the engine's own
        return Outcome(error=_picklable(error))


def _picklable(error: Exception) -> Exception:
    """Return an error, or what it says where it cannot be pickled and read: Dask's backend would wait for it."""
    try:
        return copy.deepcopy(error)  # takes it apart and builds it as pickling does
    except Exception:  # noqa: BLE001  # whatever its class raises
        return StateError(f"worker {agreement.worker()}: {type(error).__name__}: {one_line(error)}")
