"""An engine that is scripted and runs its tasks in threads."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import pytest

from pipeline.cluster.connection import Workers, WorkersLostError
from pipeline.cluster.remote import RemoteCluster
from pipeline.cluster.worker import Shared
from pipeline.core.errors import StateError

TWO = {"one": 1, "two": 1}


Look = Callable[[], Workers]


Said = pytest.CaptureFixture[str]


class LostError(BaseException):
    """What the engine itself raises when a worker ends."""


class Scripted(RemoteCluster):
    """Its tasks are threads of this process, its workers whatever a test says they are at each look."""

    name = "dask"
    package = "json"
    returns = "generator_unordered"
    waits_for_lost_workers = False
    extra_dispatch = 0
    look: Look = staticmethod(lambda: TWO)
    answers: Mapping[str, Any] | None = None
    """What asking gives; left out, each worker answers for itself."""

    def __enter__(self) -> Self:
        self.stopped = threading.Event()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stopped.set()

    def workers(self, *, gpu: bool = False) -> Workers:
        return {} if gpu else self.look()

    def ask(self, question: Callable[[], Any], seconds: float) -> Mapping[str, Any]:
        return {name: question() for name in self.look()} if self.answers is None else self.answers

    def backend(self, shared: Shared, slots: int, *, gpu: bool) -> dict[str, Any]:
        return {"backend": "threading", "n_jobs": slots}

    def require_head(self) -> None:
        pass

    def lost(self, error: BaseException) -> StateError | None:
        return WorkersLostError(f"{self.where}: a worker ended") if isinstance(error, LostError) else None

    def stop(self) -> None:
        self.stopped.set()


class Listing(Scripted):
    """Gives its results at the end, in order, and counts on all its workers, as Ray does."""

    returns = "list"
    waits_for_lost_workers = True


def joined(cluster: Scripted) -> Iterator[Scripted]:
    with cluster:
        cluster.agree(dict)
        yield cluster


def one_at_a_time() -> Workers:
    return {"one": 1}


def loses(*tasks: int, times: int = 1) -> tuple[Callable[[int], int], Counter[int]]:
    """Return a function that squares, and loses its worker with some tasks; and how often each was begun."""
    begun = Counter[int]()

    def square(task: int) -> int:
        begun[task] += 1
        if task in tasks and begun[task] <= times:
            raise LostError
        return task**2

    return square, begun


def fails(error: Exception) -> Callable[[int], int]:
    def fail(task: int) -> int:
        raise error

    return fail
