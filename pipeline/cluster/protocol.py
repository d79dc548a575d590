"""The interface of every engine: apply a function to many tasks."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import joblib

Task = TypeVar("Task")
Result = TypeVar("Result")


class Cluster(Protocol):
    """Processes that run tasks."""

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield the function's results in the tasks' order.

        Function and tasks are pickled to send them to a worker; the work of a lost worker is done again.
        """


class LocalProcess:
    """The current process, unless an outer `joblib.parallel_config` sets another backend."""

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield the function's results in the tasks' order."""
        yield from joblib.Parallel(return_as="generator")(joblib.delayed(function)(task) for task in tasks)
