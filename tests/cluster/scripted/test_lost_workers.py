"""What all engines do when workers are lost."""

import threading
import time
from collections import Counter

import pytest

from pipeline.cluster import call
from pipeline.cluster.connection import Workers, WorkersLostError
from pipeline.core.errors import StateError
from tests.cluster.scripted.engine import TWO, Listing, LostError, Said, Scripted, joined, loses, one_at_a_time


class TestLostWorkers:
    def test_lost_tasks_run_again_and_no_others(self, scripted: Scripted) -> None:
        scripted.look = one_at_a_time
        square, begun = loses(2)
        assert list(scripted.map(square, range(5))) == [0, 1, 4, 9, 16]
        assert begun == {0: 1, 1: 1, 2: 2, 3: 1, 4: 1}

    def test_a_result_that_came_early_is_not_computed_again(self, scripted: Scripted) -> None:
        first, begun = threading.Event(), Counter[int]()

        def function(task: int) -> int:
            begun[task] += 1
            if task == 0 and begun[0] == 1:
                assert first.wait(5)
                time.sleep(0.1)  # until the other's result is there
                raise LostError
            first.set()
            return task

        assert list(scripted.map(function, range(2))) == [0, 1]
        assert begun == {0: 2, 1: 1}

    def test_an_engine_that_returns_all_results_at_once_repeats_all(self, address: str) -> None:
        cluster = Listing(address)
        cluster.look = one_at_a_time
        square, begun = loses(1)
        for one in joined(cluster):
            assert list(one.map(square, range(3))) == [0, 1, 4]
        assert begun == {0: 2, 1: 2, 2: 1}

    def test_a_line_says_that_lost_tasks_start_again(self, scripted: Scripted, capsys: Said) -> None:
        square, _ = loses(1)
        list(scripted.map(square, range(2)))
        assert capsys.readouterr().err == f"{scripted.where}: a worker ended; its tasks are started again\n"

    def test_a_line_says_once_that_the_engine_gives_tasks_to_others(self, scripted: Scripted, capsys: Said) -> None:
        looks = iter([TWO, {}])
        scripted.look = lambda: next(looks, {"two": 1, "three": 1})
        list(scripted.map(lambda _: time.sleep(0.1), range(4)))
        assert capsys.readouterr().err == f"{scripted.where}: gone: one; their tasks are started again\n"

    def test_workers_lost_three_times_end_the_work(self, cluster: Scripted) -> None:
        square, begun = loses(1, times=99)
        with pytest.raises(StateError, match=r"a worker ended \(3 times\): see the workers' logs") as caught:
            list(cluster.map(square, range(2)))
        assert not isinstance(caught.value, WorkersLostError)
        assert begun[1] == 3

    def test_lost_workers_that_an_engine_would_wait_for_are_named(self, address: str) -> None:
        looks = iter([TWO])
        with Listing(address) as cluster:
            cluster.agree(dict)
            cluster.look = lambda: next(looks, {"two": 1, "new": 1})
            with pytest.raises(WorkersLostError, match=f"dask at {address}: gone: one$"):
                list(cluster.each(lambda _: cluster.stopped.wait(5), range(2)))

    def test_one_of_two_workers_is_enough_if_the_engine_gives_it_all_tasks(self, scripted: Scripted) -> None:
        looks = iter([TWO])
        scripted.look = lambda: next(looks, {"two": 1})
        assert [one for one in scripted.each(lambda _: time.sleep(0.2) or 1, [0]) if one] == [1]


class TestAllWorkersGone:
    def test_the_work_ends_after_a_while_and_drops_the_other_tasks(self, cluster: Scripted) -> None:
        looks = iter([TWO])
        cluster.look = lambda: next(looks, {})
        began = time.monotonic()
        with pytest.raises(StateError, match="all workers are gone; what they finished is kept: start new ones"):
            list(cluster.map(lambda _: cluster.stopped.wait(5), range(2)))
        assert call.GRACE < time.monotonic() - began < 2
        assert cluster.stopped.is_set()

    def test_the_work_ends_if_there_are_no_workers_at_the_start(self, cluster: Scripted) -> None:
        cluster.look = dict
        with pytest.raises(StateError, match="all workers are gone"):
            list(cluster.map(abs, [1]))

    def test_workers_that_come_back_in_time_are_waited_for(self, scripted: Scripted) -> None:
        back, looks = threading.Event(), iter([TWO, {}, {}])

        def look() -> Workers:
            there = next(looks, None)
            if there is None:
                back.set()
            return TWO if there is None else there

        scripted.look = look
        assert list(scripted.map(lambda task: back.wait(5) and task, [1, 2])) == [1, 2]

    def test_workers_that_come_before_the_work_begins_are_waited_for(self, cluster: Scripted) -> None:
        looks = iter([{}, {}])
        cluster.look = lambda: next(looks, TWO)
        assert list(cluster.map(abs, [-1, -2])) == [1, 2]

    def test_a_result_counts_as_a_sign_of_life(self, scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(call, "LOOK_EVERY", 0.1)
        monkeypatch.setattr(call, "GRACE", 0.4)
        looks = iter([{"one": 1}, {}])
        scripted.look = lambda: next(looks, {"one": 1})

        def function(task: int) -> int:
            time.sleep(0.01 if task < 60 else 0.2)  # nobody looks while answers come that fast
            return task

        assert list(scripted.map(function, range(61))) == list(range(61))
