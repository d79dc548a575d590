"""What every test of a stage shares."""

import pytest

from tests.stages.spine import undrawn


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    undrawn(monkeypatch)
