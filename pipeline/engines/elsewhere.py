"""Workers in other processes and machines, reached through joblib's backends."""

import importlib
import queue
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, ClassVar, Self, TypeVar

import joblib

from pipeline.errors import InputError, StateError

Task = TypeVar("Task")
Result = TypeVar("Result")

LOOK_EVERY = 0.5
"""Seconds between two looks at the workers, and at what they have finished."""
GRACE = 10.0
"""Seconds for which a cluster may be without workers: those that are restarted come back by then."""
ANSWER_WITHIN = 5.0
"""Seconds for whoever listens at the address to answer."""
ROUNDS = 3
"""How often work that lost its workers is begun, in all."""


class WorkersLostError(StateError):
    """Workers ended in the middle of their work; what they had finished is kept."""


class Elsewhere(ABC):
    """Workers that are there already. Leaving the block lets go of them; the tasks in their hands they finish."""

    name: ClassVar[str]
    """Of the engine, as joblib calls its backend."""
    package: ClassVar[str]
    """The module that it needs."""
    counts_on_all: ClassVar[bool]
    """Whether it waits for workers that are gone, instead of giving their tasks to others."""
    returns: ClassVar[str]
    """How its backend gives results back, as `joblib.Parallel` calls it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.where = f"params.yaml: embed.engine: {self.name} at {address}"
        self.module = self._imported()
        self._require_listener()

    def _imported(self) -> ModuleType:
        try:
            return importlib.import_module(self.package)
        except ImportError as error:
            raise InputError(
                f"params.yaml: embed.engine: {self.package} is not installed: pip install 'headswap[{self.name}]'"
            ) from error

    def _require_listener(self) -> None:
        """Raise StateError unless something listens at the address: the engines themselves would try for minutes."""
        host, _, port = self.address.rpartition("//")[2].rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_WITHIN).close()
        except OSError as error:
            raise StateError(f"{self.where}: nothing answers ({error}); is the cluster running?") from error

    @abstractmethod
    def __enter__(self) -> Self:
        """Join; StateError if it is not the engine that answers, or one of another version."""

    @abstractmethod
    def __exit__(self, *_error: object) -> None:
        """Leave."""

    @abstractmethod
    def slots(self, *, gpu: bool = False) -> int:
        """Return how many tasks can run at once now: 0 where there are no workers; one for each GPU if asked for."""

    @abstractmethod
    def ask(self, question: Callable[[], Result], seconds: float) -> Mapping[str, Result | BaseException]:
        """Ask every worker; return the answers within some seconds, or what went wrong, by the workers' names."""

    @abstractmethod
    def backend(self, shared: object, slots: int, *, gpu: bool) -> dict[str, Any]:
        """Return the arguments of `joblib.parallel_config`.

        Args:
            shared: what goes with every task, and need be sent but once.
            slots: how many tasks are to run at once.
            gpu: whether each is to have a GPU.

        """

    @abstractmethod
    def worded(self, error: BaseException) -> BaseException:
        """Return a WorkersLostError or StateError for what the engine raises; anything else as it is."""

    @abstractmethod
    def stop(self) -> None:
        """Give up what `each` has begun: nothing of it is waited for any more."""

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield the function's results in the tasks' order, doing again what lost workers had; errors as `each`."""
        done: dict[int, Result] = {}
        told = 0
        for lost in range(1, ROUNDS + 1):
            left = [(number, task) for number, task in enumerate(tasks) if number >= told and number not in done]
            try:
                for answer in self.each(partial(_numbered, function), left):
                    done |= [answer] if answer is not None else []
                    while told in done:
                        yield done.pop(told)
                        told += 1
            except WorkersLostError as error:
                self.require_patience(lost, error)
            else:
                return

    def require_patience(self, lost: int, error: WorkersLostError) -> None:
        """Wait until there are workers again; StateError if that takes too long, or they were lost once too often."""
        seen = time.monotonic()
        while not self.slots():
            self._seen(seen, 0, gpu=False)
            time.sleep(LOOK_EVERY)
        if lost >= ROUNDS:
            raise StateError(
                f"{error}, for the {lost}. time: see the workers' logs; what they finished is kept"
            ) from error

    def each(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], *, gpu: bool = False
    ) -> Iterator[Result | None]:
        """Yield results as they come, and None every half second besides, so that the caller may look around.

        Args:
            function: pickled, with each task, on its way to a worker, where it runs without joblib's backend.
            tasks: what it is called with.
            gpu: whether each task is to have a GPU of its own.

        Raises:
            WorkersLostError: if a worker is lost and the engine does not make up for it.
            StateError: if there are no workers any more.
            PipelineError: whatever the function raises.

        """
        slots = self.slots(gpu=gpu)
        answers: queue.Queue[tuple[str, Any]] = queue.Queue()
        feed = threading.Thread(target=self._feed, args=(function, tasks, answers, slots, gpu), daemon=True)
        feed.start()
        seen = time.monotonic()
        try:
            while True:
                try:
                    kind, value = answers.get(timeout=LOOK_EVERY)
                except queue.Empty:
                    seen = self._seen(seen, slots, gpu=gpu)
                    yield None
                else:
                    if kind == "error":
                        raise self.worded(value)
                    if kind == "end":
                        return
                    yield value
        finally:
            feed.join(LOOK_EVERY)
            if feed.is_alive():
                self.stop()

    def _feed(
        self,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        answers: "queue.Queue[tuple[str, Any]]",
        slots: int,
        gpu: bool,
    ) -> None:
        """Put every result into the queue, from a thread of its own: joblib waits without looking around."""
        try:
            with joblib.parallel_config(**self.backend(function, slots, gpu=gpu)):
                calls = (joblib.delayed(_by_itself)(function, task) for task in tasks)
                for result in joblib.Parallel(return_as=self.returns, batch_size=1)(calls):
                    answers.put(("result", result))
            answers.put(("end", None))
        except BaseException as error:  # noqa: BLE001  # raised by the thread that waits
            answers.put(("error", error))

    def _seen(self, seen: float, slots: int, *, gpu: bool) -> float:
        """Return when workers were last seen: now, if there are any.

        Raises:
            StateError: if they have been gone for too long.
            WorkersLostError: if there are fewer than the engine has counted on, and it would wait for them.

        """
        now, there = time.monotonic(), self.slots(gpu=gpu)
        if there < slots and self.counts_on_all and there:
            raise WorkersLostError(f"{self.where}: {slots - there} of {slots} workers are gone")
        if there:
            return now
        if now - seen > GRACE:
            raise StateError(
                f"{self.where}: all workers are gone; what they finished is kept: start new ones, then run it again"
            )
        return seen


def _numbered(function: Callable[[Task], Result], numbered: tuple[int, Task]) -> tuple[int, Result]:
    return numbered[0], function(numbered[1])


def _by_itself(function: Callable[[Task], Result], task: Task) -> Result:
    """Call a function in a worker; what it runs in parallel stays there, or it would send its data round."""
    with joblib.parallel_config("sequential"):
        return function(task)
