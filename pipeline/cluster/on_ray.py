"""Ray: a head and further nodes, started with Ray's own tools."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self, TypeVar

from pipeline.cluster.connection import Workers, WorkersLostError
from pipeline.cluster.remote import RemoteCluster
from pipeline.cluster.worker import Shared
from pipeline.core.errors import StateError

Result = TypeVar("Result")

RELEASED_WITHIN = 5.0
"""Seconds until the CPUs of ended workers are free."""


class Ray(RemoteCluster):
    """The nodes of a Ray cluster, one of which must be on this machine; each CPU, or GPU, is a worker."""

    name = "ray"
    package = "ray"
    join_hint = "is it ray that listens there, and does it ask for a token (RAY_AUTH_MODE=token)?"
    waits_for_lost_workers = True
    extra_dispatch = 0  # its pool gives tasks to workers in turn when they are sent
    returns = "list"

    def __init__(self, address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports usage unless told not to
        super().__init__(address)
        self.there = True

    def __enter__(self) -> Self:
        """Become a driver of the cluster."""
        self.join(partial(self.module.init, self.address, log_to_driver=False, logging_level="ERROR"))
        from ray.util.joblib import register_ray  # noqa: PLC0415

        register_ray()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *_error: object) -> None:
        """Leave, and end the workers of our tasks, unless the head is gone: that would hang."""
        if self.there:
            self.module.shutdown()

    def workers(self, *, gpu: bool = False) -> Workers:
        """Return the nodes with their CPUs, or with their GPUs."""
        counted = {
            name: int(about["Resources"].get("GPU" if gpu else "CPU", 0)) for name, about in self._nodes().items()
        }
        return {name: number for name, number in counted.items() if number}

    def ask(self, question: Callable[[], Result], seconds: float) -> Mapping[str, Result | BaseException]:
        """Ask one process on each node; its other processes have the same environment."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

        def answered() -> object:  # nested, so that it is pickled as code, not as a name to import
            return question()

        task, asked = self.module.remote(answered), {}
        for name, about in self._nodes().items():
            there = NodeAffinitySchedulingStrategy(about["NodeID"], soft=False)
            asked[name] = task.options(num_cpus=0, scheduling_strategy=there).remote()
        self.module.wait(list(asked.values()), num_returns=len(asked), timeout=seconds)
        return {name: self._answer(reference) for name, reference in asked.items()}

    def backend(self, shared: Shared, slots: int, *, gpu: bool) -> dict[str, Any]:  # noqa: ARG002  # it sees by itself
        """Ask for one actor per free slot, each with a CPU, which Ray would not reserve by default.

        Ray begins when all actors have a place, so there must not be too many. With one actor, joblib would compute in
        this process; so two actors share a single GPU, and a single CPU is refused.
        """
        free = self._free("GPU" if gpu else "CPU", slots)
        if free < (1 if gpu else 2):
            remedy = "wait for other work to end" if free < slots else "start a node with --num-cpus 2, or compute here"
            kind, least = ("GPUs", 1) if gpu else ("CPUs", 2)
            raise StateError(f"{self.where}: free {kind}: got {free} of {slots}, expected at least {least}: {remedy}")
        slots = min(slots, free)
        resources = {"num_cpus": 1} | ({"num_gpus": 1 if slots > 1 else 0.5} if gpu else {})
        return {"backend": "ray", "n_jobs": max(2, slots), "ray_remote_args": resources}

    def _free(self, kind: str, slots: int) -> int:
        """Return how many of the slots are free; those of our last call become free a moment after its end."""
        until = time.monotonic() + RELEASED_WITHIN
        while (free := int(self.module.available_resources().get(kind, 0))) < slots and time.monotonic() < until:
            time.sleep(0.1)
        return free

    def require_head(self) -> None:
        """Raise StateError if nothing listens at the head's address: Ray would end this process a minute later."""
        try:
            self._require_listener()
        except StateError as error:
            self.there = False
            raise StateError(f"{self.where}: the head is gone; what was finished is kept") from error

    def lost(self, error: BaseException) -> StateError | None:
        """Recognise lost workers."""
        errors = self.module.exceptions
        if isinstance(error, (errors.RayActorError, errors.WorkerCrashedError, errors.NodeDiedError)):
            return WorkersLostError(f"{self.where}: a worker ended in the middle of its work")
        return None

    def stop(self) -> None:
        """Leave and join again, if possible: a driver's tasks end when it leaves."""
        if not self.there:
            return
        self.__exit__()
        with contextlib.suppress(StateError):
            self.__enter__()

    def _nodes(self) -> Mapping[str, Any]:
        """Return the nodes with CPUs, by address and id; StateError if the head is gone: Ray would wait for it."""
        self.require_head()
        try:
            nodes = self.module.nodes()
        except (self.module.exceptions.RayError, RuntimeError):
            return {}
        computing = [node for node in nodes if node["Alive"] and node["Resources"].get("CPU")]
        return {f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})": node for node in computing}

    def _answer(self, reference: Any) -> Any:  # noqa: ANN401  # Ray's types do not say what a reference is of
        try:
            return self.module.get(reference, timeout=0)
        except self.module.exceptions.GetTimeoutError:
            return TimeoutError()
        except self.module.exceptions.RayError as error:
            return getattr(error, "cause", None) or error
