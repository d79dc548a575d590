"""Kill `dvc repro` at random moments, and put the repository right again with what a user has at hand."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.test_end_to_end import BACKBONE, SmallClone

PER_STRATUM = 8


class TinyClone(SmallClone):
    """32 images, one head, no plan; every edit leaves less or more to do, and never what was done before."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, PER_STRATUM)
        self.set(
            **{
                "split.val": 0.25,
                "embed.batch_size": 1,  # slow enough to be hit
                "run.heads": ["logreg"],
                "run.plans": [],
                "curve": {"fractions": [1.0], "seeds": 1, "heads": {"logreg": {"C": 0.01}}, "plans": []},
                "compare.bootstrap": 100,
                f"backbones.{BACKBONE}.image_size": 32,
            }
        )

    def edit(self, kind: str, number: int) -> None:
        """Change what decides the comparison, a head, the images, or everything."""
        edits: dict[str, Callable[[], None]] = {
            "nothing": lambda: None,
            "compare": lambda: self.set(**{"compare.bootstrap": 101 + number}),
            "head": lambda: self.set(**{"heads.logreg.C": [0.001 * (number + 1), 1.0]}),
            "images": lambda: self.lay_out(1, start=PER_STRATUM + number),
            "seed": lambda: self.set(seed=number + 1),
        }
        edits[kind]()


@dataclass(frozen=True)
class Kill:
    """What was killed, and what it took to go on."""

    kind: str
    whole_group: bool
    """Or DVC alone: its stage lives on."""
    after: float
    """Seconds."""
    running: str
    """The last line that DVC had printed."""
    mended: list[str]


class Killer:
    """Kills runs in one clone.

    Args:
        clone: in which nothing ran yet.
        generator: decides when, and what is killed.

    """

    def __init__(self, clone: TinyClone, generator: random.Random) -> None:
        self.clone, self.generator = clone, generator
        self.environment = dict(clone.environment)  # of what is killed, whatever the clone's own commands become
        # how long a `dvc repro` takes after each edit, at first by a guess
        self.lasts = {"nothing": 20.0, "compare": 4.0, "head": 6.0, "images": 20.0, "seed": 20.0}
        self.edits = 0

    def kill(self, kind: str, begun: Callable[[], bool] = lambda: True, within: float | None = None) -> Kill:
        """Edit and run until a kill comes before the end, which `within` seconds after `begun` it should; recover."""
        while True:
            self.clone.edit(kind, self.edits)
            self.edits += 1
            if found := self._killed(kind, begun, within):
                return found

    def _killed(self, kind: str, begun: Callable[[], bool], within: float | None) -> Kill | None:
        log, start = self.clone.root.parent / "log", time.monotonic()
        with log.open("w") as stream:
            dvc = subprocess.Popen(
                ["dvc", "repro"], cwd=self.clone.root, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        while not begun() and dvc.poll() is None:
            time.sleep(0.002)
        until = time.monotonic() + self.generator.uniform(0, within or self.lasts[kind])
        while time.monotonic() < until and dvc.poll() is None:
            time.sleep(0.002)
        after, status = time.monotonic() - start, dvc.poll()
        if status is not None:  # it was faster than expected, and says how long to wait the next time
            assert status == 0, log.read_text()
            self.lasts[kind] = after
            return None
        whole_group = self.generator.random() < 0.5
        (os.killpg if whole_group else os.kill)(dvc.pid, signal.SIGKILL)
        dvc.wait()
        running = ([line for line in log.read_text().splitlines() if line] or ["nothing yet"])[-1]
        return Kill(kind, whole_group, round(after, 2), running, self._recover(kind))

    def _recover(self, kind: str) -> list[str]:
        """Do what a user would; each command must end well, and every shard must still be there."""
        shards = set(self.clone.cached_shards())
        mended = [line for line in self.clone.run("headswap", "doctor", "--fix").splitlines() if "mended" in line]
        start = time.monotonic()
        self.clone.run("dvc", "repro")
        self.lasts[kind] = max(self.lasts[kind], time.monotonic() - start)
        self.clone.run("headswap", "audit")
        assert shards <= set(self.clone.cached_shards())
        assert not list(self.clone.root.rglob(".*.tmp"))
        return mended
