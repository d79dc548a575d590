"""The cost of tasks, in whatever process they run."""

import time
from dataclasses import replace

import pytest

from pipeline.cluster import LocalProcess
from pipeline.core.cost import Cost
from pipeline.heads.metering import MeteredCluster, map_metered
from tests.heads.processes import Processes

OWN = Cost(seconds=9.0, cpu_seconds=1.0, peak_memory=1, joules=5.0)


def worked(seconds: float) -> float:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return seconds


def test_results_come_in_the_order_of_the_tasks_with_their_costs() -> None:
    done = list(map_metered(LocalProcess(), worked, [0.05, 0.01]))
    assert [one.result for one in done] == [0.05, 0.01]
    assert [one.cost.cpu_seconds for one in done] == pytest.approx([0.05, 0.01], abs=0.01)


def test_the_cost_of_this_process_is_not_counted_twice() -> None:
    cluster = MeteredCluster(LocalProcess())
    assert list(cluster.map(worked, [0.01, 0.02])) == [0.01, 0.02]
    assert cluster.total_with(OWN) == OWN


def test_the_cost_of_workers_is_added_except_for_wall_seconds() -> None:
    cluster = MeteredCluster(Processes())
    assert list(cluster.map(worked, [0.1, 0.1])) == [0.1, 0.1]
    total = cluster.total_with(OWN)
    assert total.cpu_seconds == pytest.approx(1.2, abs=0.1)
    assert total.peak_memory > 1_000_000
    assert replace(total, cpu_seconds=1.0, peak_memory=1) == replace(OWN, joules=None)
