"""What tasks took, wherever they ran."""

import time
from dataclasses import replace

import pytest

from pipeline.cluster import LocalProcess
from pipeline.core.cost import Cost
from pipeline.heads.metering import Metered, metered
from tests.heads.processes import Processes

OWN = Cost(seconds=9.0, cpu_seconds=1.0, peak_memory=1, joules=5.0)


def worked(seconds: float) -> float:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return seconds


def test_results_come_in_the_tasks_order_with_what_each_took() -> None:
    done = list(metered(LocalProcess(), worked, [0.05, 0.01]))
    assert [one.result for one in done] == [0.05, 0.01]
    assert [one.cost.cpu_seconds for one in done] == pytest.approx([0.05, 0.01], abs=0.01)


def test_what_this_process_did_is_not_counted_twice() -> None:
    cluster = Metered(LocalProcess())
    assert list(cluster.map(worked, [0.01, 0.02])) == [0.01, 0.02]
    assert cluster.added_to(OWN) == OWN


def test_what_workers_did_is_added_except_for_the_wall_seconds_that_passed_meanwhile() -> None:
    cluster = Metered(Processes())
    assert list(cluster.map(worked, [0.1, 0.1])) == [0.1, 0.1]
    total = cluster.added_to(OWN)
    assert total.cpu_seconds == pytest.approx(1.2, abs=0.1)
    assert total.peak_memory > 1_000_000
    assert replace(total, cpu_seconds=1.0, peak_memory=1) == replace(OWN, joules=None)
