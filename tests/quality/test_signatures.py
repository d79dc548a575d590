"""Signatures are decoded once."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.core import stamps
from pipeline.core.errors import StateError
from pipeline.data.manifest import Manifest
from pipeline.quality import signatures
from tests.quality.examples import cloud, encoded


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.chdir(tmp_path)
    names = [f"{number}.png" for number in range(4)]
    for number, name in enumerate(names):
        Path(name).write_bytes(encoded(cloud(number, 40)))
    sha256 = [stamps.sha256_file(Path(name)) for name in names]
    return Manifest(names, names, sha256, ["red"] * 4, [None] * 4, ["train"] * 4)


def made(table: Manifest, rows: list[int], monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many images were decoded."""
    real, counted = signatures.of, []
    monkeypatch.setattr(signatures, "of", lambda content: counted.append(1) or real(content))
    signatures.read(table, np.array(rows), id)
    monkeypatch.setattr(signatures, "of", real)
    return len(counted)


def test_only_new_images_are_decoded(table: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert made(table, [0, 2], monkeypatch) == 2
    assert made(table, [0, 1, 2, 3], monkeypatch) == 2
    assert made(table, [3, 0], monkeypatch) == 0


def test_rows_come_in_the_order_that_is_asked_for(table: Manifest) -> None:
    first = signatures.parts(signatures.read(table, np.array([3, 0, 1]), id))
    alone = signatures.parts(np.stack([signatures.of(Path("3.png").read_bytes())]))
    np.testing.assert_array_equal(first.grey[0], alone.grey[0])
    assert first.side.tolist() == [40, 40, 40]
    assert (first.colour == 128).all()


def test_a_file_that_changed_is_refused(table: Manifest) -> None:
    Path("1.png").write_bytes(encoded(cloud(9)))
    with pytest.raises(StateError, match="1.png"):
        signatures.read(table, np.arange(4), id)
