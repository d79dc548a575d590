"""One call: dispatch tasks to a cluster's workers, yield results as they come, and notice lost workers."""

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Generic, TypeVar

import joblib
from tqdm import tqdm

from pipeline.cluster import agreement, worker
from pipeline.cluster.connection import Connection, Workers, WorkersLostError
from pipeline.cluster.worker import Outcome, Shared
from pipeline.core.errors import StateError
from pipeline.core.printable import printable

Task = TypeVar("Task")
Result = TypeVar("Result")

LOOK_EVERY = 0.5
"""Seconds between two checks of the workers."""
GRACE = 10.0
"""Seconds for which a cluster may have no workers, while they restart."""


class Call(Generic[Task, Result]):
    """A function, its tasks, and the state of their execution on the workers."""

    def __init__(
        self, connection: Connection, function: Callable[[Task], Result], tasks: Sequence[Task], *, gpu: bool
    ) -> None:
        self.connection, self.function, self.tasks, self.gpu = connection, function, tasks, gpu
        self.workers: Workers = {}
        """The workers at the beginning."""
        self.reported = set[str]()
        """Lost workers that were reported."""
        self.outcomes: queue.Queue[Outcome | None] = queue.Queue()
        """Ends with None."""
        self.started = threading.Event()
        """Set when the engine takes the first task."""

    def results(self) -> Iterator[Result | None]:
        """Yield as `RemoteCluster.each` says, whose errors this has."""
        self.workers = self._wait_for_workers()
        dispatching = threading.Thread(target=self._dispatch, daemon=True)
        dispatching.start()
        began = seen = time.monotonic()
        try:
            while True:
                try:
                    outcome = self.outcomes.get(timeout=LOOK_EVERY)
                except queue.Empty:
                    seen = self._last_seen(seen)
                    self._require_started(began)
                    yield None
                else:
                    if outcome is None:
                        return
                    if outcome.error is not None:
                        raise outcome.error
                    yield outcome.result
                    seen = time.monotonic()
        finally:
            dispatching.join(LOOK_EVERY)
            if dispatching.is_alive():
                self.connection.stop()

    def _wait_for_workers(self) -> Workers:
        """Wait until there are workers; StateError if that takes too long."""
        seen = time.monotonic()
        while not (workers := self.connection.workers(gpu=self.gpu)):
            self._last_seen(seen)
            time.sleep(LOOK_EVERY)
        return workers

    def _dispatch(self) -> None:
        """Put every outcome into the queue, in a separate thread: joblib blocks without checking the workers."""
        connection, slots = self.connection, sum(self.workers.values())
        shared = Shared(self.function, connection.agreement)
        try:
            with joblib.parallel_config(**connection.backend(shared, slots, gpu=self.gpu)):
                calls = (joblib.delayed(worker.run)(shared, task) for task in self._tasks())
                ahead = 2 * slots + connection.extra_dispatch
                for outcome in joblib.Parallel(return_as=connection.returns, batch_size=1, pre_dispatch=ahead)(calls):
                    self.outcomes.put(outcome)
            self.outcomes.put(None)
        except BaseException as error:  # noqa: BLE001  # an error of the engine; the waiting thread raises it
            self.outcomes.put(Outcome(error=self._as_state_error(error)))

    def _tasks(self) -> Iterator[Task]:
        """Yield the tasks, and note that the engine takes the first."""
        for task in self.tasks:
            self.started.set()
            yield task

    def _as_state_error(self, error: BaseException) -> StateError:
        """Return an engine's error as StateError, or the one that says more, such as a lost head."""
        try:
            return self.connection.as_state_error(error)
        except StateError as other:
            return other

    def _require_started(self, began: float) -> None:
        """Raise StateError if the engine takes too long to take the first task."""
        if not self.started.is_set() and time.monotonic() - began > agreement.PATIENCE:
            raise StateError(f"{self.connection.where}: takes no work; is the cluster busy with somebody else's?")

    def _last_seen(self, seen: float) -> float:
        """Return when workers were last seen, which is now if there are any.

        Raises:
            StateError: if there have been none for too long, or the head is gone.
            WorkersLostError: if one is lost for which the engine would wait.

        """
        now, workers = time.monotonic(), self.connection.workers(gpu=self.gpu)
        if workers:
            self._report(self.workers.keys() - workers.keys())
            return now
        if now - seen > GRACE:
            raise StateError(
                f"{self.connection.where}: all workers are gone; what they finished is kept: start new ones, then run "
                "it again"
            )
        return seen

    def _report(self, gone: Set[str]) -> None:
        """Report lost workers once; raise WorkersLostError if the engine would wait for them."""
        line = f"{self.connection.where}: gone: {', '.join(sorted(gone))}"
        if gone and self.connection.waits_for_lost_workers:
            raise WorkersLostError(line)
        if gone - self.reported:
            self.reported |= gone
            warn(f"{line}; their tasks are started again")


def warn(line: str) -> None:
    """Print a line about a problem that does not end the work."""
    tqdm.write(printable(line), file=sys.stderr)
