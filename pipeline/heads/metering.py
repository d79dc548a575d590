"""The cost of tasks, in whatever process they run."""

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
class MeteredResult(Generic[Result]):
    """A task's result and its cost."""

    result: Result
    cost: Cost
    """Of the whole process: tasks that run at the same time in its threads are counted in each other's cost."""
    process: tuple[str, int]
    """The machine and the number of the process that ran the task."""

    @property
    def remote(self) -> bool:
        """Whether another process ran the task."""
        return self.process != _this_process()


def _this_process() -> tuple[str, int]:
    return platform.node(), os.getpid()


def _run(function: Callable[[Task], Result], task: Task) -> MeteredResult[Result]:
    with measured() as cost:
        result = function(task)
    return MeteredResult(result, cost, _this_process())


def map_metered(
    cluster: Cluster, function: Callable[[Task], Result], tasks: Sequence[Task]
) -> Iterator[MeteredResult[Result]]:
    """Yield results with their costs, in the order of the tasks; workers share machines, so their energy is unknown."""
    for done in cluster.map(partial(_run, function), tasks):
        yield replace(done, cost=replace(done.cost, joules=None)) if done.remote else done


class MeteredCluster:
    """A cluster that adds up the cost of other processes; the cost of this one is measured by its caller."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.remote = Cost()

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield the function's results in the order of the tasks."""
        for done in map_metered(self.cluster, function, tasks):
            self.remote += done.cost if done.remote else Cost()
            yield done.result

    def total_with(self, own: Cost) -> Cost:
        """Return the cost of this process plus that of the others; wall seconds are those of this process alone."""
        if not self.remote.seconds:
            return own
        return replace(own + self.remote, seconds=own.seconds, joules=None)
