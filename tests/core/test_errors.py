"""Errors on their way from a worker to its driver."""

import pickle

import pytest

from pipeline.cluster.connection import WorkersLostError
from pipeline.core.errors import CheckFailed, InputError, PipelineError, StateError
from pipeline.embeddings.shard_writer import TooNarrowError


@pytest.mark.parametrize("kind", [PipelineError, InputError, StateError, CheckFailed, TooNarrowError, WorkersLostError])
@pytest.mark.parametrize("problems", [(), ("one",), ("a: got 1", "b: got 2\nexpected 3")])
def test_they_arrive_whole(kind: type[PipelineError], problems: tuple[str, ...]) -> None:
    arrived = pickle.loads(pickle.dumps(kind(*problems)))
    assert type(arrived) is kind
    assert arrived.problems == problems
    assert str(arrived) == "\n".join(problems)


def test_what_a_check_says_besides_arrives_too() -> None:
    assert pickle.loads(pickle.dumps(CheckFailed("one", printed="table"))).printed == "table"
