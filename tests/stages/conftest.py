"""What every test of a stage shares."""

import pytest
from markupsafe import Markup

from pipeline.report import charts, embedding_map


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the charts out, which take longer than all stages together; tests/report and tests/browser draw them."""
    monkeypatch.setattr(charts, "_drawn", lambda draw, description: Markup(""))
    monkeypatch.setattr(embedding_map, "library", lambda: "")
