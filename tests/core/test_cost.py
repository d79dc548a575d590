import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core import cost, systems
from pipeline.core.cost import Clock, Cost, measured, typical_seconds

FULL = 1_000_000_000
"""Microjoules at which the counters of these tests start anew."""


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make the counters of two packages, of a part of one, and of the platform, which holds both."""
    names = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:0:0": "core", "intel-rapl:2": "psys",
             "intel-rapl-mmio:0": "package-0"}  # fmt: skip
    for zone, name in names.items():
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(f"{name}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text(f"{FULL}\n")
        show(tmp_path, zone, 0)
    monkeypatch.setattr(cost, "POWERCAP", tmp_path)
    cost._energy.cache_clear()
    yield tmp_path
    cost._energy.cache_clear()


def show(folder: Path, zone: str, microjoules: int) -> None:
    (folder / zone / "energy_uj").write_text(f"{microjoules}\n")


def test_energy_is_what_the_packages_took_without_their_parts_and_the_platform(counters: Path) -> None:
    with measured() as took:
        for zone in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:2", "intel-rapl-mmio:0"):
            show(counters, zone, 3_000_000)
        show(counters, "intel-rapl:1", 500_000)
    assert took.joules == 3.5


def test_a_counter_that_starts_anew_loses_nothing(counters: Path) -> None:
    show(counters, "intel-rapl:0", FULL - 2_000_000)
    clock = Clock()
    show(counters, "intel-rapl:0", 1_000_000)
    assert clock.read().joules == 3
    show(counters, "intel-rapl:0", 5_000_000)
    assert clock.read().joules == 7


def test_counters_that_cannot_be_read_give_no_energy(counters: Path) -> None:
    with measured() as took:
        (counters / "intel-rapl:1/energy_uj").unlink()
    assert took.joules is None
    show(counters, "intel-rapl:1", 0)
    cost._energy.cache_clear()
    (counters / "intel-rapl:0/max_energy_range_uj").unlink()
    assert Clock().read().joules is None


def test_a_machine_without_counters_gives_no_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "POWERCAP", tmp_path)
    cost._energy.cache_clear()
    assert Clock().read().joules is None
    cost._energy.cache_clear()


def test_costs_add_up_but_for_memory_of_which_the_larger_counts() -> None:
    one, two = Cost(1.0, 2.0, 3, peak_memory=400, joules=5.0), Cost(10.0, 20.0, 30, peak_memory=40, joules=50.0)
    assert one + two == Cost(11.0, 22.0, 33, peak_memory=400, joules=55.0)
    assert one * 0.5 == Cost(0.5, 1.0, 0, peak_memory=400, joules=2.5)


def test_energy_is_unknown_if_a_part_that_took_time_lacks_it() -> None:
    known, unknown = Cost(1.0, joules=5.0), Cost(1.0)
    assert (known + unknown).joules is None
    assert (unknown + known).joules is None
    assert (Cost() + known + Cost()).joules == 5
    assert (Cost() + Cost()).joules is None


def test_an_older_cost_file_is_a_cost() -> None:
    content = json.loads('{"seconds": 1.0, "cpu_seconds": 2.0, "images": 3}')
    assert Cost(**content) == Cost(1.0, 2.0, 3, peak_memory=0, joules=None)


def test_a_clock_goes_on_from_what_was_taken_before(counters: Path) -> None:
    clock = Clock()
    clock.before = Cost(100.0, 200.0, peak_memory=10**15, joules=7.0)
    show(counters, "intel-rapl:0", 1_000_000)
    read = clock.read()
    assert 100 < read.seconds < 200 <= read.cpu_seconds
    assert (read.peak_memory, read.joules) == (10**15, 8)


@pytest.mark.parametrize("status", [True, False])
def test_peak_memory_stays_when_the_memory_is_free_again(status: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not status:
        monkeypatch.setattr(systems, "STATUS", Path("nowhere"))
    bytearray(b"x" * 50_000_000)
    with measured() as took:
        pass
    assert 50_000_000 < took.peak_memory < 10**12


@pytest.mark.skipif(not systems.STATUS.exists(), reason="elsewhere a program knows no better")
def test_a_program_does_not_start_with_the_peak_of_the_one_that_started_it() -> None:
    large = b"x" * 200_000_000
    code = "from pipeline.core.cost import Clock; print(Clock().read().peak_memory)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < len(large)


def test_typical_seconds_are_the_median_of_three_and_slow_work_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.5, 1.0, 1.2, 2.0, 2.3])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    assert typical_seconds(lambda: None) == pytest.approx(0.3)
    slow = iter([0.0, 1.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(slow))
    assert typical_seconds(lambda: None) == 1.5
