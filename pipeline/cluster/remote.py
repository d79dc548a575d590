"""Workers in other processes and machines, reached through joblib's backends."""

import asyncio
import copy
import importlib
import queue
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future
from functools import partial
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import joblib
from tqdm import tqdm

from pipeline.cluster import agreement
from pipeline.cluster.agreement import Agreement, Identify
from pipeline.core.errors import InputError, StateError, first_five, one_line
from pipeline.core.printable import printable

Task = TypeVar("Task")
Result = TypeVar("Result")
Workers = Mapping[str, int]
"""Name -> tasks that it does at once."""

LOOK_EVERY = 0.5
"""Seconds between two looks at the workers, and at what they have finished."""
GRACE = 10.0
"""Seconds for which a cluster may be without workers: those that are restarted come back by then."""
ANSWER_WITHIN = 5.0
"""Seconds for whoever listens at the address to answer."""
JOIN_WITHIN = 8.0
"""Seconds to join: where something else listens, the engines themselves would try for minutes, or for ever."""
ROUNDS = 3
"""How often work that lost its workers is begun, in all."""


class WorkersLostError(StateError):
    """Workers ended in the middle of their work; what they had finished is kept."""


class Shared(NamedTuple):
    """What goes with every task of a call, and need be sent but once."""

    function: Callable[[Any], Any]
    agreement: Agreement


class _Outcome(NamedTuple):
    """What became of a task."""

    result: Any = None
    error: Exception | None = None


class Elsewhere(ABC):
    """Workers that are there already. Leaving the block lets go of them; the tasks in their hands they finish."""

    name: ClassVar[str]
    """Of the engine, as joblib calls its backend."""
    package: ClassVar[str]
    """The module that it needs."""
    returns: ClassVar[str]
    """How its backend gives results back, as `joblib.Parallel` calls it."""
    doubt: ClassVar[str]
    """What to ask oneself where it cannot be joined."""
    counts_on_all: ClassVar[bool]
    """Whether it waits for workers that are gone, instead of giving their tasks to others."""
    spare: ClassVar[int]
    """Tasks that are sent beyond two for each slot, for workers that join later."""
    agreement: Agreement

    def __init__(self, address: str) -> None:
        self.address = address
        self.where = f"params.yaml: embed.engine: {self.name} at {address}"
        self.missed = set[str]()
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
        except (OSError, UnicodeError) as error:
            raise StateError(f"{self.where}: nothing answers ({error}); is the cluster running?") from error

    def within(self, join: Callable[[], Result]) -> Result:
        """Return what joining the cluster returns; StateError if it fails or takes too long, and is left to itself."""
        joining: Future[Result] = Future()

        def attempt() -> None:
            try:
                joining.set_result(join())
            except Exception as error:  # noqa: BLE001  # whatever an engine raises
                joining.set_exception(error)

        threading.Thread(target=attempt, daemon=True).start()
        try:
            return joining.result(JOIN_WITHIN)
        except Exception as error:
            said = one_line(error)
            silent = f"no answer within {JOIN_WITHIN:.0f} s"
            raise StateError(
                f"{self.where}: {f'cannot join ({said})' if joining.done() else silent}; {self.doubt}"
            ) from error

    @abstractmethod
    def __enter__(self) -> Self:
        """Join; StateError if it is not the engine that answers, or one of another version."""

    @abstractmethod
    def __exit__(self, *_error: object) -> None:
        """Leave."""

    @abstractmethod
    def workers(self, *, gpu: bool = False) -> Workers:
        """Return who is there now; asked for GPUs, only who has some, and how many; StateError if the head is gone."""

    @abstractmethod
    def ask(self, question: Callable[[], Result], seconds: float) -> Mapping[str, Result | BaseException]:
        """Ask every worker; return the answers within some seconds, or what went wrong, by the workers' names."""

    @abstractmethod
    def backend(self, shared: Shared, slots: int, *, gpu: bool) -> dict[str, Any]:
        """Return the arguments of `joblib.parallel_config`: for so many tasks at once, each with a GPU if asked for."""

    @abstractmethod
    def require_head(self) -> None:
        """Raise StateError if the scheduler, or head, is gone."""

    @abstractmethod
    def lost(self, error: BaseException) -> StateError | None:
        """Return a WorkersLostError or StateError for what the engine raises when something is gone."""

    @abstractmethod
    def stop(self) -> None:
        """Give up what `each` has begun: nothing of it is waited for any more."""

    def slots(self, *, gpu: bool = False) -> int:
        """Return how many tasks can run at once now, or how many with a GPU."""
        return sum(self.workers(gpu=gpu).values())

    def agree(self, identify: Identify) -> None:
        """Ask here and everywhere; StateError if there are no workers, or with a line for all that differs at one."""
        self.agreement = Agreement(identify, identify())
        try:
            answers = self._answers(identify)
        except (Exception, asyncio.CancelledError) as error:
            raise self.worded(error) from error
        if not answers:
            raise StateError(f"{self.where}: has no workers; start some")
        problems = [
            f"{self.where}: worker {name}: {problem}"
            for name, answer in answers.items()
            for problem in agreement.problems(self.agreement.here, answer)
        ]
        if problems:
            raise StateError(*first_five(problems, "differences"))

    def _answers(self, identify: Identify) -> Mapping[str, object]:
        """Ask whether Headswap is there, and only then what needs it: a Dask worker ends with what it cannot import."""
        answers: Mapping[str, object] = self.ask(agreement.question(), agreement.PATIENCE)
        if answers and all(answer is True for answer in answers.values()):
            return self.ask(identify, agreement.PATIENCE)
        return answers

    def worded(self, error: BaseException) -> StateError:
        """Return what an engine raises as a line."""
        unknown = StateError(f"{self.where}: {type(error).__name__}: {one_line(error)}")
        return error if isinstance(error, StateError) else self.lost(error) or unknown

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield the function's results in the tasks' order, doing again what lost workers had; errors as `each`."""
        done: dict[int, Result] = {}
        told = 0

        def left() -> list[tuple[int, Task]]:
            return [(number, task) for number, task in enumerate(tasks) if number >= told and number not in done]

        for answer in self.rounds(partial(_numbered, function), left):
            done |= [answer] if answer is not None else []
            while told in done:
                yield done.pop(told)
                told += 1

    def rounds(
        self, function: Callable[[Task], Result], left: Callable[[], Sequence[Task]], *, gpu: bool = False
    ) -> Iterator[Result | None]:
        """Yield as `each` does; after workers are lost, begin again with the tasks that are left then.

        Raises:
            StateError: as `each`, and if workers are lost in every round.
            Exception: whatever the function raises.

        """
        for lost in range(1, ROUNDS + 1):
            if not (tasks := left()):
                return
            try:
                yield from self.each(function, tasks, gpu=gpu)
            except WorkersLostError as error:
                if lost == ROUNDS:
                    remedy = "see the workers' logs; what they finished is kept"
                    raise StateError(f"{error}, for the {lost}. time: {remedy}") from error
                _tell(f"{error}; what it had is begun again")
            else:
                return

    def each(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], *, gpu: bool = False
    ) -> Iterator[Result | None]:
        """Yield results as they come, and None every half second besides, so that the caller may look around.

        Args:
            function: pickled, as each task is, on its way to a worker, where it runs without joblib's backend.
            tasks: what it is called with.
            gpu: whether each task is to have a GPU of its own.

        Raises:
            WorkersLostError: if a worker is lost and the engine does not make up for it.
            StateError: if there are no workers any more, none takes the first task, or one that has joined since does
                not agree.
            Exception: whatever the function raises.

        """
        began_with = self._awaited(gpu=gpu)
        answers: queue.Queue[_Outcome | None] = queue.Queue()
        sent = threading.Event()
        arguments = (function, _telling(tasks, sent), answers, began_with, gpu)
        feed = threading.Thread(target=self._feed, args=arguments, daemon=True)
        feed.start()
        began = seen = time.monotonic()
        try:
            while True:
                try:
                    answer = answers.get(timeout=LOOK_EVERY)
                except queue.Empty:
                    seen = self._seen(seen, began_with, gpu=gpu)
                    self._require_begun(sent, began)
                    yield None
                else:
                    if answer is None:
                        return
                    if answer.error is not None:
                        raise answer.error
                    yield answer.result
                    seen = time.monotonic()
        finally:
            feed.join(LOOK_EVERY)
            if feed.is_alive():
                self.stop()

    def _feed(
        self,
        function: Callable[[Task], Result],
        tasks: Iterator[Task],
        answers: "queue.Queue[_Outcome | None]",
        workers: Workers,
        gpu: bool,
    ) -> None:
        """Put every result into the queue, from a thread of its own: joblib waits without looking around."""
        shared, slots = Shared(function, self.agreement), sum(workers.values())
        try:
            with joblib.parallel_config(**self.backend(shared, slots, gpu=gpu)):
                calls = (joblib.delayed(_answer)(shared, task) for task in tasks)
                ahead = 2 * slots + self.spare
                for outcome in joblib.Parallel(return_as=self.returns, batch_size=1, pre_dispatch=ahead)(calls):
                    answers.put(outcome)
            answers.put(None)
        except BaseException as error:  # noqa: BLE001  # the engine's, not a task's; raised by the thread that waits
            answers.put(_Outcome(error=self._engines_own(error)))

    def _engines_own(self, error: BaseException) -> StateError:
        """Word an error; what goes wrong meanwhile, as when the head is gone, says more."""
        try:
            return self.worded(error)
        except StateError as other:
            return other

    def _require_begun(self, sent: threading.Event, began: float) -> None:
        """Raise StateError if the engine has taken no task for too long."""
        if not sent.is_set() and time.monotonic() - began > agreement.PATIENCE:
            raise StateError(f"{self.where}: takes no work; is the cluster busy with somebody else's?")

    def _awaited(self, *, gpu: bool) -> Workers:
        """Return the workers, as soon as there are any; StateError if that takes too long."""
        seen = time.monotonic()
        while not (workers := self.workers(gpu=gpu)):
            self._seen(seen, {}, gpu=gpu)
            time.sleep(LOOK_EVERY)
        return workers

    def _seen(self, seen: float, began_with: Workers, *, gpu: bool) -> float:
        """Return when workers were last seen: now, if there are any.

        Raises:
            StateError: if they have been gone for too long, or the head is gone.
            WorkersLostError: if one is gone for which the engine would wait.

        """
        now, there = time.monotonic(), self.workers(gpu=gpu)
        if there:
            self._miss(began_with.keys() - there.keys())
            return now
        if now - seen > GRACE:
            raise StateError(
                f"{self.where}: all workers are gone; what they finished is kept: start new ones, then run it again"
            )
        return seen

    def _miss(self, gone: Set[str]) -> None:
        """Tell once that some workers are gone; raise WorkersLostError if the engine would wait for them."""
        said = f"{self.where}: gone: {', '.join(sorted(gone))}"
        if gone and self.counts_on_all:
            raise WorkersLostError(said)
        if gone - self.missed:
            self.missed |= gone
            _tell(f"{said}; what they had is begun again")


def _tell(line: str) -> None:
    """Say what went wrong and does not end the work."""
    tqdm.write(printable(line), file=sys.stderr)


def _telling(tasks: Sequence[Task], sent: threading.Event) -> Iterator[Task]:
    """Yield the tasks, and tell when the first one is drawn."""
    for task in tasks:
        sent.set()
        yield task


def _numbered(function: Callable[[Task], Result], numbered: tuple[int, Task]) -> tuple[int, Result]:
    return numbered[0], function(numbered[1])


def _answer(shared: Shared, task: Any) -> _Outcome:  # noqa: ANN401  # whatever the function takes
    """Call a function in a worker; what it runs in parallel stays there, or it would send its data round."""
    try:
        shared.agreement.require()
        with joblib.parallel_config("sequential"):
            return _Outcome(shared.function(task))
    except Exception as error:  # noqa: BLE001  # raised by the driver, which then knows it from the engine's own
        return _Outcome(error=_able_to_travel(error))


def _able_to_travel(error: Exception) -> Exception:
    """Return an error, or what it says where it cannot be pickled and read: Dask's backend would wait for it."""
    try:
        return copy.deepcopy(error)  # takes it apart and builds it as pickling does
    except Exception:  # noqa: BLE001  # whatever its class raises
        return StateError(f"worker {agreement.worker()}: {type(error).__name__}: {one_line(error)}")
