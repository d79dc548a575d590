"""What all engines share, through one that is scripted and runs its tasks in threads."""

import copyreg
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Self

import joblib
import pytest

from pipeline.cluster import ENGINES, agreement, call, on_ray
from pipeline.cluster.connection import Workers, WorkersLostError
from pipeline.cluster.on_ray import Ray
from pipeline.cluster.remote import RemoteCluster
from pipeline.cluster.worker import Shared
from pipeline.core.errors import InputError, StateError

TWO = {"one": 1, "two": 1}
Look = Callable[[], Workers]
Said = pytest.CaptureFixture[str]


class LostError(BaseException):
    """What the engine itself raises when a worker ends."""


class Scripted(RemoteCluster):
    """Its tasks are threads of this process, its workers whatever a test says they are at each look."""

    name = "dask"
    package = "json"
    returns = "generator_unordered"
    waits_for_lost_workers = False
    extra_dispatch = 0
    look: Look = staticmethod(lambda: TWO)
    answers: Mapping[str, Any] | None = None
    """What asking gives; left out, each worker answers for itself."""

    def __enter__(self) -> Self:
        self.stopped = threading.Event()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stopped.set()

    def workers(self, *, gpu: bool = False) -> Workers:
        return {} if gpu else self.look()

    def ask(self, question: Callable[[], Any], seconds: float) -> Mapping[str, Any]:
        return {name: question() for name in self.look()} if self.answers is None else self.answers

    def backend(self, shared: Shared, slots: int, *, gpu: bool) -> dict[str, Any]:
        return {"backend": "threading", "n_jobs": slots}

    def require_head(self) -> None:
        pass

    def lost(self, error: BaseException) -> StateError | None:
        return WorkersLostError(f"{self.where}: a worker ended") if isinstance(error, LostError) else None

    def stop(self) -> None:
        self.stopped.set()


class Listing(Scripted):
    """Gives its results at the end, in order, and counts on all its workers, as Ray does."""

    returns = "list"
    waits_for_lost_workers = True


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(call, "GRACE", 0.1)


@pytest.fixture
def address() -> Iterator[str]:
    """Listen, as a scheduler would."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(params=[Scripted, Listing])
def cluster(request: pytest.FixtureRequest, address: str) -> Iterator[Scripted]:
    yield from joined(request.param(address))


@pytest.fixture
def scripted(address: str) -> Iterator[Scripted]:
    yield from joined(Scripted(address))


def joined(cluster: Scripted) -> Iterator[Scripted]:
    with cluster:
        cluster.agree(dict)
        yield cluster


def one_at_a_time() -> Workers:
    return {"one": 1}


def loses(*tasks: int, times: int = 1) -> tuple[Callable[[int], int], Counter[int]]:
    """Return a function that squares, and loses its worker with some tasks; and how often each was begun."""
    begun = Counter[int]()

    def square(task: int) -> int:
        begun[task] += 1
        if task in tasks and begun[task] <= times:
            raise LostError
        return task**2

    return square, begun


def fails(error: Exception) -> Callable[[int], int]:
    def fail(task: int) -> int:
        raise error

    return fail


class TestResults:
    def test_they_come_in_the_tasks_order_whatever_is_done_first(self, cluster: Scripted) -> None:
        last, done = threading.Event(), list[int]()

        def function(task: int) -> int:
            assert task > 0 or last.wait(5)
            done.append(task)
            if task == 3:
                last.set()
            return task**2

        assert list(cluster.map(function, range(5))) == [0, 1, 4, 9, 16]
        assert done.index(0) > done.index(3)

    def test_there_are_none_without_tasks(self, cluster: Scripted) -> None:
        assert list(cluster.map(fails(LostError()), [])) == []

    def test_as_they_come_there_is_time_to_look_around(self, cluster: Scripted) -> None:
        last = threading.Event()
        began, found = time.monotonic(), list[int | None]()
        for answer in cluster.each(lambda task: last.wait(5) and task, [7]):
            found.append(answer)
            if found.count(None) == 3:
                last.set()
        assert [one for one in found if one is not None] == [7]
        assert time.monotonic() - began < 2

    def test_what_a_task_runs_in_parallel_stays_where_it_is(self, cluster: Scripted) -> None:
        def function(task: int) -> tuple[int, set[int]]:
            inner = joblib.Parallel(n_jobs=2)(joblib.delayed(threading.get_ident)() for _ in range(4))
            return joblib.effective_n_jobs(-1), set(inner) - {threading.get_ident()}

        assert list(cluster.map(function, range(3))) == [(1, set())] * 3


class TestLostWorkers:
    def test_their_work_is_done_again_and_no_other(self, scripted: Scripted) -> None:
        scripted.look = one_at_a_time
        square, begun = loses(2)
        assert list(scripted.map(square, range(5))) == [0, 1, 4, 9, 16]
        assert begun == {0: 1, 1: 1, 2: 2, 3: 1, 4: 1}

    def test_what_came_out_of_turn_is_not_done_again_either(self, scripted: Scripted) -> None:
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

    def test_an_engine_that_gives_all_results_at_once_does_all_again(self, address: str) -> None:
        cluster = Listing(address)
        cluster.look = one_at_a_time
        square, begun = loses(1)
        for one in joined(cluster):
            assert list(one.map(square, range(3))) == [0, 1, 4]
        assert begun == {0: 2, 1: 2, 2: 1}

    def test_it_is_told_when_their_work_begins_again(self, scripted: Scripted, capsys: Said) -> None:
        square, _ = loses(1)
        list(scripted.map(square, range(2)))
        assert capsys.readouterr().err == f"{scripted.where}: a worker ended; what it had is begun again\n"

    def test_it_is_told_once_when_the_engine_itself_deals_anew(self, scripted: Scripted, capsys: Said) -> None:
        looks = iter([TWO, {}])
        scripted.look = lambda: next(looks, {"two": 1, "three": 1})
        list(scripted.map(lambda _: time.sleep(0.1), range(4)))
        assert capsys.readouterr().err == f"{scripted.where}: gone: one; what they had is begun again\n"

    def test_lost_too_often_they_end_the_work_with_the_count(self, cluster: Scripted) -> None:
        square, begun = loses(1, times=99)
        with pytest.raises(StateError, match="a worker ended, for the 3. time: see the workers' logs") as caught:
            list(cluster.map(square, range(2)))
        assert not isinstance(caught.value, WorkersLostError)
        assert begun[1] == 3

    def test_those_an_engine_would_wait_for_are_named(self, address: str) -> None:
        looks = iter([TWO])
        with Listing(address) as cluster:
            cluster.agree(dict)
            cluster.look = lambda: next(looks, {"two": 1, "new": 1})
            with pytest.raises(WorkersLostError, match=f"dask at {address}: gone: one$"):
                list(cluster.each(lambda _: cluster.stopped.wait(5), range(2)))

    def test_one_of_two_is_enough_for_an_engine_that_deals_anew(self, scripted: Scripted) -> None:
        looks = iter([TWO])
        scripted.look = lambda: next(looks, {"two": 1})
        assert [one for one in scripted.each(lambda _: time.sleep(0.2) or 1, [0]) if one] == [1]


class TestAllWorkersGone:
    def test_it_ends_after_a_while_and_lets_go_of_the_rest(self, cluster: Scripted) -> None:
        looks = iter([TWO])
        cluster.look = lambda: next(looks, {})
        began = time.monotonic()
        with pytest.raises(StateError, match="all workers are gone; what they finished is kept: start new ones"):
            list(cluster.map(lambda _: cluster.stopped.wait(5), range(2)))
        assert call.GRACE < time.monotonic() - began < 2
        assert cluster.stopped.is_set()

    def test_it_ends_likewise_if_none_is_there_to_begin_with(self, cluster: Scripted) -> None:
        cluster.look = dict
        with pytest.raises(StateError, match="all workers are gone"):
            list(cluster.map(abs, [1]))

    def test_those_that_come_back_in_time_are_waited_for(self, scripted: Scripted) -> None:
        back, looks = threading.Event(), iter([TWO, {}, {}])

        def look() -> Workers:
            there = next(looks, None)
            if there is None:
                back.set()
            return TWO if there is None else there

        scripted.look = look
        assert list(scripted.map(lambda task: back.wait(5) and task, [1, 2])) == [1, 2]

    def test_those_that_come_back_before_the_work_begins_are_waited_for(self, cluster: Scripted) -> None:
        looks = iter([{}, {}])
        cluster.look = lambda: next(looks, TWO)
        assert list(cluster.map(abs, [-1, -2])) == [1, 2]

    def test_those_that_answered_a_moment_ago_were_there_then(
        self, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(call, "LOOK_EVERY", 0.1)
        monkeypatch.setattr(call, "GRACE", 0.4)
        looks = iter([{"one": 1}, {}])
        scripted.look = lambda: next(looks, {"one": 1})

        def function(task: int) -> int:
            time.sleep(0.01 if task < 60 else 0.2)  # nobody looks while answers come that fast
            return task

        assert list(scripted.map(function, range(61))) == list(range(61))


@pytest.mark.parametrize("error", [InputError("a: got 1", "b: got 2"), StateError("gone"), OSError(28, "disk full")])
def test_what_a_task_raises_arrives_as_it_was(cluster: Scripted, error: Exception) -> None:
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
def test_what_cannot_travel_is_said_with_the_workers_name(
    cluster: Scripted, error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(copyreg.dispatch_table, type(error), raising=False)  # where Dask was imported, more can
    with pytest.raises(StateError, match=f"^worker {agreement.worker()}: {said}"):
        list(cluster.map(fails(error), [1, 2]))


def test_an_engine_that_takes_no_work_is_not_waited_for_for_ever(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "PATIENCE", 0.1)
    with Scripted(address) as cluster:
        cluster.agree(dict)
        cluster.backend = lambda *_, **__: cluster.stopped.wait(5) or {}  # type: ignore[method-assign]
        with pytest.raises(StateError, match=f"dask at {address}: takes no work; is the cluster busy"):
            list(cluster.map(abs, [1]))
        assert cluster.stopped.is_set()


def test_leaving_early_gives_up_what_was_begun(scripted: Scripted) -> None:
    answers = scripted.each(lambda _: scripted.stopped.wait(5), range(4))
    assert next(answers) is None
    answers.close()
    assert scripted.stopped.is_set()


class TestJoining:
    @pytest.mark.parametrize("form", ["tcp://127.0.0.1:{}", "127.0.0.1:{}", "tcp://[::1]:{}"])
    def test_where_nothing_listens_it_says_so_at_once(self, form: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            closed = form.format(listener.getsockname()[1])
        with pytest.raises(StateError, match="nothing answers .*; is the cluster running?") as caught:
            Scripted(closed)
        assert caught.value.problems[0].startswith(f"params.yaml: embed.engine: dask at {closed}: ")

    def test_at_a_name_that_no_host_can_have_nothing_answers(self) -> None:
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


@pytest.mark.parametrize(
    ("slots", "free", "gpu", "asked"),
    [
        (3, 3.0, False, (3, {"num_cpus": 1})),
        (3, 2.5, False, (2, {"num_cpus": 1})),  # what is in use would be waited for
        (1, 1.0, True, (2, {"num_cpus": 1, "num_gpus": 0.5})),
        (4, 3.0, True, (3, {"num_cpus": 1, "num_gpus": 1})),
    ],
)
def test_rays_pool_is_as_large_as_what_is_free(
    monkeypatch: pytest.MonkeyPatch, slots: int, free: float, gpu: bool, asked: tuple[int, dict[str, float]]
) -> None:
    backend = ray(monkeypatch, {"GPU" if gpu else "CPU": free}).backend(None, slots, gpu=gpu)  # type: ignore[arg-type]
    assert (backend["n_jobs"], backend["ray_remote_args"]) == asked


@pytest.mark.parametrize(
    ("slots", "gpu", "said"),
    [
        (1, False, "free CPUs: got 1 of 1, expected at least 2: start a node with --num-cpus 2, or compute here"),
        (8, False, "free CPUs: got 1 of 8, expected at least 2: wait for other work to end"),
        (8, True, "free GPUs: got 0 of 8, expected at least 1: wait for other work to end"),
    ],
)
def test_rays_pool_of_one_which_joblib_would_run_here_is_refused(
    monkeypatch: pytest.MonkeyPatch, slots: int, gpu: bool, said: str
) -> None:
    with pytest.raises(StateError, match=f"ray at head:1: {said}"):
        ray(monkeypatch, {"CPU": 1.0}).backend(None, slots, gpu=gpu)  # type: ignore[arg-type]


def ray(monkeypatch: pytest.MonkeyPatch, free: Mapping[str, float]) -> Ray:
    module = SimpleNamespace(available_resources=lambda: free)
    monkeypatch.setattr(on_ray, "RELEASED_WITHIN", 0.0)
    monkeypatch.setattr(Ray, "__init__", lambda self: vars(self).update(where="ray at head:1", module=module))
    return Ray()  # type: ignore[call-arg]
