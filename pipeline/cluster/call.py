"""One call: dispatch tasks to a cluster's workers, yield results as they come, and notice workers that are gone."""

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
"""Seconds between two looks at the workers, and at what they have finished."""
GRACE = 10.0
"""Seconds for which a cluster may be without workers: those that are restarted come back by then."""


class Call(Generic[Task, Result]):
    """A function, the tasks it is called with on the workers, and what has become of both."""

    def __init__(
        self, connection: Connection, function: Callable[[Task], Result], tasks: Sequence[Task], *, gpu: bool
    ) -> None:
        self.connection, self.function, self.tasks, self.gpu = connection, function, tasks, gpu
        self.workers: Workers = {}
        """With which it began."""
        self.reported = set[str]()
        """Workers that are gone, and were said to be."""
        self.outcomes: queue.Queue[Outcome | None] = queue.Queue()
        """None at the end."""
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
        """Return the workers, as soon as there are any; StateError if that takes too long."""
        seen = time.monotonic()
        while not (workers := self.connection.workers(gpu=self.gpu)):
            self._last_seen(seen)
            time.sleep(LOOK_EVERY)
        return workers

    def _dispatch(self) -> None:
        """Put every outcome into the queue, from a thread of its own: joblib waits without looking around."""
        connection, slots = self.connection, sum(self.workers.values())
        shared = Shared(self.function, connection.agreement)
        try:
            with joblib.parallel_config(**connection.backend(shared, slots, gpu=self.gpu)):
                calls = (joblib.delayed(worker.run)(shared, task) for task in self._drawn())
                ahead = 2 * slots + connection.extra_dispatch
                for outcome in joblib.Parallel(return_as=connection.returns, batch_size=1, pre_dispatch=ahead)(calls):
                    self.outcomes.put(outcome)
            self.outcomes.put(None)
        except BaseException as error:  # noqa: BLE001  # the engine's, not a task's; raised by the thread that waits
            self.outcomes.put(Outcome(error=self._worded(error)))

    def _drawn(self) -> Iterator[Task]:
        """Yield the tasks; the engine has started when it takes the first."""
        for task in self.tasks:
            self.started.set()
            yield task

    def _worded(self, error: BaseException) -> StateError:
        """Word an engine's error; what goes wrong meanwhile, as when the head is gone, says more."""
        try:
            return self.connection.worded(error)
        except StateError as other:
            return other

    def _require_started(self, began: float) -> None:
        """Raise StateError if the engine has taken no task for too long."""
        if not self.started.is_set() and time.monotonic() - began > agreement.PATIENCE:
            raise StateError(f"{self.connection.where}: takes no work; is the cluster busy with somebody else's?")

    def _last_seen(self, seen: float) -> float:
        """Return when workers were last seen: now, if there are any.

        Raises:
            StateError: if they have been gone for too long, or the head is gone.
            WorkersLostError: if one is gone for which the engine would wait.

        """
        now, there = time.monotonic(), self.connection.workers(gpu=self.gpu)
        if there:
            self._report(self.workers.keys() - there.keys())
            return now
        if now - seen > GRACE:
            raise StateError(
                f"{self.connection.where}: all workers are gone; what they finished is kept: start new ones, then run "
                "it again"
            )
        return seen

    def _report(self, gone: Set[str]) -> None:
        """Say once that some workers are gone; raise WorkersLostError if the engine would wait for them."""
        said = f"{self.connection.where}: gone: {', '.join(sorted(gone))}"
        if gone and self.connection.waits_for_lost_workers:
            raise WorkersLostError(said)
        if gone - self.reported:
            self.reported |= gone
            warn(f"{said}; what they had is begun again")


def warn(line: str) -> None:
    """Say what went wrong and does not end the work."""
    tqdm.write(printable(line), file=sys.stderr)
