"""What work takes: wall seconds, CPU seconds, images through the CNN, memory and energy."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.core import systems

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows the processor's energy counters, if it has any; often only root may read them."""
READ_EVERY = 30
"""Seconds. A counter of 65 kJ, the smallest known, lasts over 60 s even at a kilowatt."""


@dataclass
class Cost:
    """What a pass, a run, or a part of one took; `images` counts passes of an image through the CNN or a part of it."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    images: int = 0
    peak_memory: int = 0
    """Bytes: the largest resident size of the process that did the work; 0 where it was not recorded."""
    joules: float | None = None
    """What the machine's processor packages took meanwhile, with all else that they did; None where that is unknown."""
    running_seconds: float = 0.0
    """Of a pass after its first batch, which also waits for the network to be prepared."""
    running_images: float = 0.0
    """That went through in them."""

    def __add__(self, other: "Cost") -> "Cost":
        """Add two costs up; of memory the larger counts, and energy is unknown if a part's is."""
        joules = [cost.joules for cost in (self, other) if cost.seconds]
        known = [one for one in joules if one is not None]
        return Cost(
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            self.images + other.images,
            max(self.peak_memory, other.peak_memory),
            sum(known) if known and len(known) == len(joules) else None,
            self.running_seconds + other.running_seconds,
            self.running_images + other.running_images,
        )

    def __mul__(self, fraction: float) -> "Cost":
        """Take a part; passes are whole, so their number is left out, and memory is no sum of parts."""
        joules = None if self.joules is None else self.joules * fraction
        running = self.running_seconds * fraction, self.running_images * fraction
        return Cost(self.seconds * fraction, self.cpu_seconds * fraction, 0, self.peak_memory, joules, *running)


class Clock:
    """What was taken since it was made, on top of what earlier processes took."""

    def __init__(self) -> None:
        self.before = Cost()
        self.wall, self.cpu, self.joules = time.perf_counter(), time.process_time(), _energy().read()

    def read(self) -> Cost:
        """Return all of it so far."""
        joules = _energy().read()
        if joules is not None and self.joules is not None:
            joules -= self.joules
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return self.before + Cost(wall, cpu, 0, systems.peak_memory(), joules)


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure the block into the Cost it yields."""
    cost, clock = Cost(), Clock()
    yield cost
    took = clock.read()
    cost.seconds, cost.cpu_seconds, cost.peak_memory, cost.joules = (
        took.seconds, took.cpu_seconds, took.peak_memory, took.joules
    )  # fmt: skip


def duration(seconds: float) -> str:
    """Word a time as people do."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.{1 if seconds < 600 else 0}f} minutes"


def typical_seconds(work: Callable[[], object]) -> float:
    """Return the median of three timings, or the first one if it is longer than a second."""
    timings: list[float] = []
    while len(timings) < 3 and sum(timings[:1]) <= 1:
        start = time.perf_counter()
        work()
        timings.append(time.perf_counter() - start)
    return statistics.median(timings)


class _Energy:
    """Joules of the processor's packages since this was made, by Linux's RAPL counters.

    A counter starts again at 0 at its `max_energy_range_uj`, on large servers every few minutes; so a thread reads them
    as long as the process lives.
    """

    def __init__(self) -> None:
        names = sorted(POWERCAP.glob("intel-rapl:*/name"))  # AMD's, too; their parts and the whole platform left out
        self.packages = [path.parent for path in names if path.read_text().startswith("package-")]
        self.joules, self.lock = 0.0, threading.Lock()
        self.counters = self._numbers("energy_uj")
        self.ranges = self._numbers("max_energy_range_uj")
        if self.counters:
            threading.Thread(target=self._keep_up, daemon=True).start()

    def read(self) -> float | None:
        """Return the joules so far; None where the counters are missing or not to be read."""
        with self.lock:
            before, self.counters = self.counters, self._numbers("energy_uj")
            if not before or not self.counters or not self.ranges:
                self.counters = None
                return None
            for last, now, full in zip(before, self.counters, self.ranges, strict=True):
                self.joules += (now - last if now >= last else now - last + full) / 1e6
            return self.joules

    def _numbers(self, name: str) -> list[int] | None:
        try:
            return [int((package / name).read_text()) for package in self.packages]
        except (OSError, ValueError):
            return None

    def _keep_up(self) -> None:
        while self.counters:
            time.sleep(READ_EVERY)
            self.read()


@cache
def _energy() -> _Energy:
    return _Energy()
