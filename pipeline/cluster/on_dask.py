"""Dask: a scheduler and its workers, started with Dask's own tools."""

import asyncio
import concurrent.futures
import contextlib
import logging
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self, TypeVar

from pipeline.cluster import agreement
from pipeline.cluster.connection import ANSWER_WITHIN, Workers, WorkersLostError
from pipeline.cluster.remote import RemoteCluster
from pipeline.cluster.worker import Shared
from pipeline.core.errors import StateError

Result = TypeVar("Result")

LOGGERS = ("distributed", "distributed.client", "distributed.core", "tornado.application", "asyncio")
"""They would print tracebacks of errors that are reported here."""


class Dask(RemoteCluster):
    """The workers of a Dask scheduler, which gives the tasks of a lost worker to others."""

    name = "dask"
    package = "distributed"
    join_hint = "is it dask that listens there?"
    waits_for_lost_workers = False
    extra_dispatch = 64
    returns = "generator_unordered"

    def __enter__(self) -> Self:
        """Connect to the scheduler."""
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about other versions: those that decide numbers are compared later
            self.client = self.join(partial(self.module.Client, self.address, timeout=ANSWER_WITHIN))
        # the scheduler unpickles what it passes on
        if not self.join(partial(self.client.run_on_scheduler, agreement.installation_check())):
            self.client.close()
            raise StateError(
                f"{self.where}: headswap is not installed in the scheduler's environment, which needs it, too"
            )
        return self

    def __exit__(self, *_error: object) -> None:
        """Disconnect; the scheduler drops tasks that nobody waits for."""
        self.client.close()

    def workers(self, *, gpu: bool = False) -> Workers:
        """Return the workers with one task each; with `gpu`, with as many as their resource GPU."""
        found = self._workers()
        gpus = {name: int(about["resources"].get("GPU", 0)) for name, about in found.items()}
        return {name: number for name, number in gpus.items() if number} if gpu else dict.fromkeys(found, 1)

    def ask(self, question: Callable[[], Result], seconds: float) -> Mapping[str, Result | BaseException]:
        """Send the question to each worker as a task that no other may take; refuse workers with several threads."""
        workers = self._workers()
        asked = {
            address: self.client.submit(question, workers=[address], allow_other_workers=False, pure=False)
            for address in workers
        }
        with contextlib.suppress(TimeoutError):
            self.module.wait(list(asked.values()), seconds)
        answers = {address: _answer(future) for address, future in asked.items()}
        return answers | {address: _threads(one["nthreads"]) for address, one in workers.items() if one["nthreads"] > 1}

    def backend(self, shared: Shared, slots: int, *, gpu: bool) -> dict[str, Any]:  # noqa: ARG002  # it counts itself
        """Send shared data once; with `gpu`, ask for the resource GPU, which workers are started with."""
        from pipeline.cluster.dask_backend import DaskBackend  # noqa: PLC0415

        resources = {"resources": {"GPU": 1}} if gpu else {}
        return {"backend": DaskBackend(client=self.client, scatter=[shared], **resources), "n_jobs": -1}

    def require_head(self) -> None:
        """Raise StateError unless the client is connected; tasks of an earlier connection are lost."""
        if self.client.status != "running":
            raise StateError(f"{self.where}: the scheduler is gone; what was finished is kept")

    def lost(self, error: BaseException) -> StateError | None:
        """Recognise a lost scheduler, lost workers, and a task that ends every worker that runs it."""
        if isinstance(error, self.module.scheduler.KilledWorker):
            tried = error.allowed_failures + 1
            return StateError(f"{self.where}: {tried} workers ended while they had the same task; see their logs")
        if isinstance(error, (concurrent.futures.CancelledError, asyncio.CancelledError, OSError)):
            self.require_head()
            return WorkersLostError(f"{self.where}: workers ended, and what only they had is lost")
        return None

    def stop(self) -> None:
        """Do nothing: closing the client will."""

    def _workers(self) -> Mapping[str, Any]:
        """Return the scheduler's facts about its workers; StateError if it is gone."""
        self.require_head()
        try:
            return dict(self.client.scheduler_info(n_workers=-1).get("workers", {}))
        except OSError:
            return {}


def _answer(future: Any) -> Any:  # noqa: ANN401  # Dask has no types for futures
    if not future.done():
        return TimeoutError()
    return future.result() if future.status == "finished" else future.exception()


def _threads(number: int) -> StateError:
    """Refuse several threads: tasks in one process would share its folder, warnings and CPU seconds."""
    return StateError(f"has {number} threads, expected 1: start it with --nworkers {number} --nthreads 1")
