"""Workers in other processes and machines, reached through joblib's backends."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from pipeline.cluster.call import Call, warn
from pipeline.cluster.connection import Connection, WorkersLostError
from pipeline.core.errors import StateError

Task = TypeVar("Task")
Result = TypeVar("Result")

ROUNDS = 3
"""How often work is begun, in all, if workers are lost."""


class RemoteCluster(Connection):
    """A connection whose workers take tasks."""

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield the function's results in the tasks' order, and repeat what lost workers had; errors as `each`."""
        done: dict[int, Result] = {}
        yielded = 0

        def left() -> list[tuple[int, Task]]:
            return [(number, task) for number, task in enumerate(tasks) if number >= yielded and number not in done]

        for answer in self.rounds(partial(_numbered, function), left):
            done |= [answer] if answer is not None else []
            while yielded in done:
                yield done.pop(yielded)
                yielded += 1

    def rounds(
        self, function: Callable[[Task], Result], left: Callable[[], Sequence[Task]], *, gpu: bool = False
    ) -> Iterator[Result | None]:
        """Yield as `each` does; if workers are lost, begin again with the tasks that are left.

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
                    raise StateError(f"{error} ({lost} times): {remedy}") from error
                warn(f"{error}; its tasks are started again")
            else:
                return

    def each(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], *, gpu: bool = False
    ) -> Iterator[Result | None]:
        """Yield results as they come, and None every half second, so that the caller can do other things.

        Args:
            function: pickled like the tasks; it runs in a worker without joblib's backend.
            tasks: its arguments, one for each call.
            gpu: whether each task gets a GPU of its own.

        Raises:
            WorkersLostError: if a worker is lost and the engine does not give its tasks to others.
            StateError: if there are no workers any more, none takes the first task, or one that joined later does not
                agree.
            Exception: whatever the function raises.

        """
        yield from Call(self, function, tasks, gpu=gpu).results()


def _numbered(function: Callable[[Task], Result], numbered: tuple[int, Task]) -> tuple[int, Result]:
    return numbered[0], function(numbered[1])
