from pathlib import Path

import pytest

from pipeline.core import stamps
from pipeline.core.errors import StateError
from pipeline.core.stamps import SCHEMA_VERSION, Stamp


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_a_stamp_of_an_older_or_a_newer_version_is_refused(tmp_path: Path, version: int) -> None:
    path = tmp_path / "stamp.json"
    stamps.write(path, Stamp("train", {}, {}))
    assert stamps.read(path).stage == "train"
    stamps.write(path, Stamp("train", {}, {}, schema_version=version))
    with pytest.raises(StateError, match=f"schema_version: got {version}, expected {SCHEMA_VERSION}; run"):
        stamps.read(path)
