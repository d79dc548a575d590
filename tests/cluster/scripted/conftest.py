"""Scripted clusters, and short waits."""

import socket
from collections.abc import Iterator

import pytest

from pipeline.cluster import call
from tests.cluster.scripted.engine import Listing, Scripted, joined


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
