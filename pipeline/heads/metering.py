"""What tasks take, wherever they run."""

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

from pipeline.cluster import Cluster
from pipeline.core.cost import Cost, measured

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Done(Generic[Result]):
    """A task's result and what it took."""

    result: Result
    cost: Cost
    """Of the process that did it: one that does several tasks at a time, in threads, counts each in all of them."""
    process: tuple[str, int]
    """Its machine and number."""

    @property
    def remote(self) -> bool:
        """Whether another process did it."""
        return self.process != _this_process()


def _this_process() -> tuple[str, int]:
    return platform.node(), os.getpid()


def _done(function: Callable[[Task], Result], task: Task) -> Done[Result]:
    with measured() as cost:
        result = function(task)
    return Done(result, cost, _this_process())


def metered(cluster: Cluster, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Done[Result]]:
    """Yield the results in the tasks' order; the energy of remote ones is unknown: workers share machines."""
    for done in cluster.map(partial(_done, function), tasks):
        yield replace(done, cost=replace(done.cost, joules=None)) if done.remote else done


class Metered:
    """A cluster that sums up what other processes than this one did; of its own time a process knows itself."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.remote = Cost()

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield the function's results in the tasks' order."""
        for done in metered(self.cluster, function, tasks):
            self.remote += done.cost if done.remote else Cost()
            yield done.result

    def added_to(self, own: Cost) -> Cost:
        """Add the others' share to what this process took meanwhile, whose wall seconds are all that passed."""
        if not self.remote.seconds:
            return own
        return replace(own + self.remote, seconds=own.seconds, joules=None)
