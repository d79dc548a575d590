"""What all engines share: results, errors and joining."""

import copyreg
import socket
import sys
import threading
import time

import joblib
import pytest

from pipeline.cluster import ENGINES, agreement
from pipeline.core.errors import InputError, StateError
from tests.cluster.scripted.engine import LostError, Scripted, fails


class TestResults:
    def test_results_come_in_the_order_of_the_tasks(self, cluster: Scripted) -> None:
        last, done = threading.Event(), list[int]()

        def function(task: int) -> int:
            assert task > 0 or last.wait(5)
            done.append(task)
            if task == 3:
                last.set()
            return task**2

        assert list(cluster.map(function, range(5))) == [0, 1, 4, 9, 16]
        assert done.index(0) > done.index(3)

    def test_without_tasks_there_are_no_results(self, cluster: Scripted) -> None:
        assert list(cluster.map(fails(LostError()), [])) == []

    def test_the_caller_gets_turns_between_results(self, cluster: Scripted) -> None:
        last = threading.Event()
        began, found = time.monotonic(), list[int | None]()
        for answer in cluster.each(lambda task: last.wait(5) and task, [7]):
            found.append(answer)
            if found.count(None) == 3:
                last.set()
        assert [one for one in found if one is not None] == [7]
        assert time.monotonic() - began < 2

    def test_parallel_calls_inside_a_task_stay_in_its_process(self, cluster: Scripted) -> None:
        def function(task: int) -> tuple[int, set[int]]:
            inner = joblib.Parallel(n_jobs=2)(joblib.delayed(threading.get_ident)() for _ in range(4))
            return joblib.effective_n_jobs(-1), set(inner) - {threading.get_ident()}

        assert list(cluster.map(function, range(3))) == [(1, set())] * 3


@pytest.mark.parametrize("error", [InputError("a: got 1", "b: got 2"), StateError("gone"), OSError(28, "disk full")])
def test_an_error_of_a_task_is_raised_unchanged(cluster: Scripted, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        list(cluster.map(fails(error), [1, 2]))
    assert caught.value.args == error.args


class TwoError(Exception):
    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


def holding(what: object) -> Exception:
    error = ValueError("a", what)
    error.lock = what  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "said"), [(TwoError("a", "b"), "TwoError: a: b"), (holding(threading.Lock()), "ValueError: .*lock")]
)
def test_an_error_that_cannot_be_pickled_is_described_with_the_workers_name(
    cluster: Scripted, error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(copyreg.dispatch_table, type(error), raising=False)  # where Dask was imported, more can
    with pytest.raises(StateError, match=f"^worker {agreement.worker()}: {said}"):
        list(cluster.map(fails(error), [1, 2]))


def test_an_engine_that_takes_no_work_is_an_error_after_a_while(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "PATIENCE", 0.1)
    with Scripted(address) as cluster:
        cluster.agree(dict)
        cluster.backend = lambda *_, **__: cluster.stopped.wait(5) or {}  # type: ignore[method-assign]
        with pytest.raises(StateError, match=f"dask at {address}: takes no work; is the cluster busy"):
            list(cluster.map(abs, [1]))
        assert cluster.stopped.is_set()


def test_leaving_early_gives_up_running_tasks(scripted: Scripted) -> None:
    answers = scripted.each(lambda _: scripted.stopped.wait(5), range(4))
    assert next(answers) is None
    answers.close()
    assert scripted.stopped.is_set()


class TestJoining:
    @pytest.mark.parametrize("form", ["tcp://127.0.0.1:{}", "127.0.0.1:{}", "tcp://[::1]:{}"])
    def test_an_address_where_nothing_listens_is_an_error_at_once(self, form: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            closed = form.format(listener.getsockname()[1])
        with pytest.raises(StateError, match="nothing answers .*; is the cluster running?") as caught:
            Scripted(closed)
        assert caught.value.problems[0].startswith(f"params.yaml: embed.engine: dask at {closed}: ")

    def test_an_impossible_host_name_is_an_error(self) -> None:
        with pytest.raises(StateError, match="nothing answers"):
            Scripted("tcp://a..b:8786")

    @pytest.mark.parametrize(("name", "backend"), [("distributed", "dask"), ("ray", "ray")])
    def test_a_package_that_is_missing_is_named_with_the_remedy(
        self, monkeypatch: pytest.MonkeyPatch, address: str, name: str, backend: str
    ) -> None:
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError) as caught:
            ENGINES[backend](address)
        assert caught.value.problems == (
            f"params.yaml: embed.engine: {name} is not installed: pip install 'headswap[{backend}]'",
        )
