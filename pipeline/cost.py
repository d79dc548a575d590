"""What work takes: wall seconds, CPU seconds, images through the CNN."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Cost:
    """What a pass, a run, or a part of one took; `images` counts passes of an image through the CNN or a part of it."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    images: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        """Add two costs up."""
        return Cost(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds, self.images + other.images)

    def __mul__(self, fraction: float) -> "Cost":
        """Take a part; passes are whole, so their number is left out."""
        return Cost(self.seconds * fraction, self.cpu_seconds * fraction)


class Clock:
    """Seconds since it was made, on top of what earlier processes took."""

    def __init__(self) -> None:
        self.before = Cost()
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> Cost:
        """Return all seconds so far."""
        return self.before + Cost(time.perf_counter() - self.wall, time.process_time() - self.cpu)


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure wall and CPU seconds of the block into the Cost it yields."""
    cost = Cost()
    wall, cpu = time.perf_counter(), time.process_time()
    yield cost
    cost.seconds, cost.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
