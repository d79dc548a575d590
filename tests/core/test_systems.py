"""What holds on Linux and macOS alike; there is no macOS here, so what only Linux has is taken away."""

import fcntl
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core import systems
from tests.conftest import REPOSITORY, Project

MAIN = f"""
import os, sys
import pytest
sys.path.insert(0, {str(REPOSITORY)!r})
assert not hasattr(os, "sched_getaffinity")
from pipeline.cli import main
from pipeline.networks import backbones
from tests.conftest import TINY
from tests.stages.spine import undrawn
undrawn(pytest.MonkeyPatch())
backbones.BACKBONES["tiny"] = TINY
for line in sys.stdin.read().splitlines():
    status = main(line.split())
    print(line, "->", status)
"""
VERBS = """prepare
thumbnails
embed --backbone tiny
survey --backbone tiny
curve --backbone tiny
train --backbone tiny --head logreg
finetune --backbone tiny --plan last
quality
compare
lineage
audit
report
predict logreg data/raw/red
trace logreg
cache --verify
forget red/00.png
init --data data/raw --yes
"""


def test_every_verb_runs_without_what_linux_alone_has(project: Project) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN], input=VERBS, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "tests/without_linux"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    said = [line for line in done.stdout.splitlines() if " -> " in line]
    assert said == [f"{line} -> 0" for line in VERBS.splitlines()], done.stderr


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, answer in (("process_cpu_count", 3), ("sched_getaffinity", {1, 2}), ("cpu_count", 5)):
        monkeypatch.setattr(os, name, lambda *_, answer=answer: answer, raising=False)
    found = []
    for name in ("process_cpu_count", "sched_getaffinity"):
        found.append(systems.cores())
        monkeypatch.delattr(os, name)
    assert [*found, systems.cores()] == [3, 2, 5]


def test_peak_memory_is_in_bytes_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "STATUS", Path("nowhere"))
    monkeypatch.setattr(resource, "getrusage", lambda _: resource.struct_rusage([7] * 16))
    for platform, size in (("linux", 7 * 1024), ("darwin", 7)):
        monkeypatch.setattr(sys, "platform", platform)
        assert systems.peak_memory() == size


def test_on_macos_the_disk_itself_is_asked_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _, command: asked.append(command))
    monkeypatch.setattr(os, "fsync", lambda _: asked.append("fsync"))
    for platform in ("darwin", "linux"):
        monkeypatch.setattr(sys, "platform", platform)
        systems.sync(0)
    assert asked == [51, "fsync"]


def test_the_limit_of_open_files_is_raised_as_far_as_macos_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [256]

    def setrlimit(_: int, both: tuple[int, int]) -> None:
        if both[0] > systems.MACS_OPEN_FILES:
            raise ValueError("current limit exceeds maximum limit")
        limits.append(both[0])

    monkeypatch.setattr(resource, "getrlimit", lambda _: (limits[-1], resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    for wanted in (100, 1000, 20_000, 30_000):
        systems.allow_open_files(wanted)
    assert limits == [256, 1000, systems.MACS_OPEN_FILES]


def test_the_processors_name_is_found_or_something_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert systems.processor()
    monkeypatch.setattr(systems, "PROCESSORS", Path("nowhere"))
    assert systems.processor()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, "Apple M2\n"))
    assert systems.processor() == "Apple M2"
