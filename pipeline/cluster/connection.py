"""Join a cluster, and check that its workers agree on what decides numbers; the interface of an engine."""

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
"""Name -> number of tasks that it runs at once."""

ANSWER_WITHIN = 5.0
"""Seconds within which a connection to the address must succeed."""
JOIN_WITHIN = 8.0
"""Seconds to join; if another program listens there, the engines themselves would try for minutes, or for ever."""


class WorkersLostError(StateError):
    """Workers ended during their work; what they had finished is kept."""


class Connection(ABC):
    """Workers of a running cluster. After the block they run on, and finish the tasks they have begun."""

    name: ClassVar[str]
    """The engine's name, which is that of joblib's backend."""
    package: ClassVar[str]
    """The module of its library."""
    returns: ClassVar[str]
    """The `return_as` of `joblib.Parallel` that its backend supports."""
    join_hint: ClassVar[str]
    """What to check if joining fails."""
    waits_for_lost_workers: ClassVar[bool]
    """Whether it waits for lost workers, instead of giving their tasks to others."""
    extra_dispatch: ClassVar[int]
    """Number of tasks sent beyond two for each slot, for workers that join later."""
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

    def join(self, connect: Callable[[], Result]) -> Result:
        """Call a function that joins the cluster; StateError if it fails or takes too long."""
        joining: Future[Result] = Future()

        def attempt() -> None:
            try:
                joining.set_result(connect())
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
        """Join; StateError if another program answers, or another version of the engine."""

    @abstractmethod
    def __exit__(self, *_error: object) -> None:
        """Leave."""

    @abstractmethod
    def workers(self, *, gpu: bool = False) -> Workers:
        """Return the current workers; with `gpu`, those with GPUs, and how many. StateError if the head is gone."""

    @abstractmethod
    def ask(self, question: Callable[[], Result], seconds: float) -> Mapping[str, Result | BaseException]:
        """Ask every worker; return worker -> answer, or the error, if it comes within some seconds."""

    @abstractmethod
    def backend(self, shared: Shared, slots: int, *, gpu: bool) -> dict[str, Any]:
        """Return the arguments of `joblib.parallel_config` for `slots` tasks at once, each with a GPU if `gpu`."""

    @abstractmethod
    def require_head(self) -> None:
        """Raise StateError if the scheduler, or head, is gone."""

    @abstractmethod
    def lost(self, error: BaseException) -> StateError | None:
        """Return the WorkersLostError or StateError for an engine's error about lost processes; None for others."""

    @abstractmethod
    def stop(self) -> None:
        """Give up the dispatched tasks; nobody waits for them any more."""

    def slots(self, *, gpu: bool = False) -> int:
        """Return how many tasks can run at once now, or how many tasks with a GPU."""
        return sum(self.workers(gpu=gpu).values())

    def agree(self, identify: Identify) -> None:
        """Compare this process with all workers; StateError without workers, or with a line for each difference."""
        self.agreement = Agreement(identify, identify())
        try:
            answers = self._answers(identify)
        except (Exception, asyncio.CancelledError) as error:
            raise self.as_state_error(error) from error
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
        """Ask whether Headswap is installed, and then for the identity: a Dask worker ends if it cannot import it."""
        answers: Mapping[str, object] = self.ask(agreement.installation_check(), agreement.PATIENCE)
        if answers and all(answer is True for answer in answers.values()):
            return self.ask(identify, agreement.PATIENCE)
        return answers

    def as_state_error(self, error: BaseException) -> StateError:
        """Return an engine's error as a StateError with one line."""
        unknown = StateError(f"{self.where}: {type(error).__name__}: {one_line(error)}")
        return error if isinstance(error, StateError) else self.lost(error) or unknown
