"""Joining a cluster, agreeing with its workers on what decides numbers, and what an engine must offer for it."""

import asyncio
import importlib
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import ModuleType
from typing import Any, ClassVar, Self, TypeVar

from pipeline.cluster import agreement
from pipeline.cluster.agreement import Agreement, Identify
from pipeline.cluster.worker import Shared
from pipeline.core.errors import InputError, StateError, first_five, one_line

Result = TypeVar("Result")
Workers = Mapping[str, int]
"""Name -> tasks that it does at once."""

ANSWER_WITHIN = 5.0
"""Seconds for whoever listens at the address to answer."""
JOIN_WITHIN = 8.0
"""Seconds to join: where something else listens, the engines themselves would try for minutes, or for ever."""


class WorkersLostError(StateError):
    """Workers ended in the middle of their work; what they had finished is kept."""


class Connection(ABC):
    """Joined workers, which were there already. Leaving the block lets go of them; the tasks in hand they finish."""

    name: ClassVar[str]
    """Of the engine, as joblib calls its backend."""
    package: ClassVar[str]
    """The module that it needs."""
    returns: ClassVar[str]
    """How its backend gives results back, as `joblib.Parallel` calls it."""
    join_hint: ClassVar[str]
    """What to check where it cannot be joined."""
    waits_for_lost_workers: ClassVar[bool]
    """Whether it waits for workers that are gone, instead of giving their tasks to others."""
    extra_dispatch: ClassVar[int]
    """Tasks that are sent beyond two for each slot, for workers that join later."""
    agreement: Agreement

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
                f"{self.where}: {f'cannot join ({said})' if joining.done() else silent}; {self.join_hint}"
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
        """Give up the tasks that were dispatched: nothing of them is waited for any more."""

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
