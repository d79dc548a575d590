"""What every engine can do: apply a function to many tasks."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import joblib

Task = TypeVar("Task")
Result = TypeVar("Result")


class Cluster(Protocol):
    """Where tasks can be sent."""

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield the function's results in the tasks' order.

        Function and tasks are pickled on their way to a worker; the work of a worker that is lost is done again.
        """


class Here:
    """The process itself; an outer `joblib.parallel_config` may say otherwise."""

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield the function's results in the tasks' order."""
        yield from joblib.Parallel(return_as="generator")(joblib.delayed(function)(task) for task in tasks)
