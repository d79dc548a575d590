"""Workers that differ from their driver do nothing for it."""

import asyncio
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from pipeline.cluster import agreement
from pipeline.cluster.agreement import Agreement, Identity
from pipeline.cluster.remote import RemoteCluster
from pipeline.core.errors import InputError, StateError
from tests.conftest import REPOSITORY

HERE: Identity = {"python": "3.11", "weights": "a"}


class Asked(RemoteCluster):
    """Workers that answer what a test says."""

    name, package, returns, waits_for_lost_workers, extra_dispatch = "ray", "json", "list", False, 0
    where = "params.yaml: embed.engine: ray at head:1"
    backend = lost = require_head = workers = stop = __enter__ = __exit__ = None  # type: ignore[assignment]

    def __init__(self, *answers: Mapping[str, Any]) -> None:
        self.answers, self.questions = iter(answers), list[Callable[[], Any]]()

    def ask(self, question: Callable[[], Any], seconds: float) -> Mapping[str, Any]:
        assert seconds == agreement.PATIENCE
        self.questions.append(question)
        return next(self.answers)


def identify() -> Identity:
    return HERE


def refused(*answers: Mapping[str, Any]) -> tuple[str, ...]:
    with pytest.raises(StateError) as caught:
        Asked(*answers).agree(identify)
    return caught.value.problems


def test_workers_that_agree_are_accepted() -> None:
    cluster = Asked({"a": True, "b": True}, {"a": HERE, "b": dict(HERE)})
    cluster.agree(identify)
    assert cluster.agreement.here == HERE
    assert cluster.questions[1] is identify


def test_a_cluster_without_workers_is_refused() -> None:
    assert refused({}) == ("params.yaml: embed.engine: ray at head:1: has no workers; start some",)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"python": "3.12", "weights": "a"}, "python: got '3.12', expected '3.11' as on the driver"),
        ({"python": "3.11"}, "weights: got None, expected 'a' as on the driver"),
        (InputError("backbones.b: no such file"), "backbones.b: no such file"),
        (TimeoutError(), "no answer within 60 s; is it busy with other work?"),
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (None, "answered None"),
        (MemoryError("m" * 999), "MemoryError: " + "m" * 300),
    ],
)
def test_any_other_answer_is_one_line_with_the_workers_name(answer: object, said: str) -> None:
    found = refused({"a": True, "w:1": True}, {"a": HERE, "w:1": answer})
    assert found == (f"params.yaml: embed.engine: ray at head:1: worker w:1: {said}",)


def test_a_worker_without_headswap_gets_no_question_that_needs_it() -> None:
    (line,) = refused({"a": True, "w:1": False})
    assert "worker w:1: headswap is not installed there: install this very commit" in line


def test_all_lines_of_all_workers_are_listed_up_to_five() -> None:
    found = refused(dict.fromkeys("abcd", True), {name: {"python": "2", "weights": "b"} for name in "abcd"})
    assert len(found) == 6
    assert found[-1] == "... 8 differences in all"


class TestWhoJoinsLate:
    def test_a_worker_that_differs_is_refused_by_name(self) -> None:
        with pytest.raises(StateError) as caught:
            Agreement(lambda: {**HERE, "weights": "b"}, HERE).require()
        name = f"{platform.node()}:{os.getpid()}"
        assert caught.value.problems == (f"worker {name}: weights: got 'b', expected 'a' as on the driver",)

    def test_a_worker_that_agrees_is_asked_once_per_driver(self) -> None:
        asked = list[int]()
        first, second = (Agreement(lambda: asked.append(1) or HERE, HERE) for _ in range(2))
        for one in (first, first, cloudpickle.loads(cloudpickle.dumps(first)), second):
            one.require()
        assert len(asked) == 2

    def test_a_worker_that_was_refused_is_asked_again(self) -> None:
        answers = iter([{}, HERE])
        late = Agreement(lambda: next(answers), HERE)
        with pytest.raises(StateError):
            late.require()
        late.require()

    def test_a_worker_that_fails_to_answer_is_named(self) -> None:
        def identify() -> Identity:
            raise StateError("embed.cache: not shared")

        with pytest.raises(StateError, match=f"^worker {agreement.worker()}: embed.cache: not shared"):
            Agreement(identify, HERE).require()


OTHER_PROCESS = """
import sys
import cloudpickle

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pipeline":
            raise ModuleNotFoundError(name)

if sys.argv[1:]:
    sys.meta_path.insert(0, Blocked())
print(cloudpickle.loads(sys.stdin.buffer.read())(), "pipeline.cluster" in sys.modules)
"""


@pytest.mark.parametrize(("blocked", "answer"), [(["blocked"], b"False False"), ([], b"True False")])
def test_the_first_question_needs_no_headswap(blocked: list[str], answer: bytes) -> None:
    asked = cloudpickle.dumps(agreement.installation_check())
    command = [sys.executable, "-c", OTHER_PROCESS, *blocked]
    done = subprocess.run(command, cwd=REPOSITORY, input=asked, capture_output=True, check=False)
    assert done.stdout.strip() == answer, done.stderr.decode()


class TestSoftware:
    def test_software_is_python_the_code_and_the_libraries(self) -> None:
        found = agreement.software(["numpy", "no-such-library"])
        assert found["numpy"] == importlib.metadata.version("numpy")
        assert found["no-such-library"] == "none"
        assert found["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
        assert len(found["headswap's code"]) == 12

    def test_a_changed_or_renamed_file_is_other_code(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        copy = tmp_path / "pipeline"
        shutil.copytree(REPOSITORY / "pipeline", copy, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(agreement, "__file__", str(copy / "cluster/agreement.py"))
        found = [agreement._code.__wrapped__()]
        (copy / "__pycache__").mkdir()
        (copy / "__pycache__/cost.pyc").touch()  # Python's own, and nobody's code
        found.append(agreement._code.__wrapped__())
        (copy / "images.py").write_text("other")
        found.append(agreement._code.__wrapped__())
        (copy / "core/cost.py").rename(copy / "core/costs.py")
        found.append(agreement._code.__wrapped__())
        assert found[0] == found[1]
        assert len(set(found)) == 3


class Torn(Asked):
    """A cluster whose head ends while its workers are asked."""

    def ask(self, question: Callable[[], Any], seconds: float) -> Mapping[str, Any]:
        raise asyncio.CancelledError

    def lost(self, error: BaseException) -> StateError:
        return StateError(f"{self.where}: the scheduler is gone")


def test_a_head_that_ends_meanwhile_is_one_line() -> None:
    with pytest.raises(StateError, match="ray at head:1: the scheduler is gone"):
        Torn().agree(identify)
