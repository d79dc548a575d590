from pathlib import Path

import numpy as np
import pytest

from pipeline import stamps
from pipeline.errors import StateError
from pipeline.evaluation import predictions
from tests.evaluation import examples


def test_predictions_read_back_as_written(tmp_path: Path) -> None:
    path, one = tmp_path / "p.parquet", examples.predictions()
    predictions.write(path, one)
    read = predictions.read(path, stamps.Stamp("train", stamps.hashes([path]), {}))
    np.testing.assert_array_equal(read.probability, one.probability)
    assert (read.image_id, read.label, read.classes) == (one.image_id, one.label, one.classes)


def test_altered_predictions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    predictions.write(path, examples.predictions())
    stamp = stamps.Stamp("train", stamps.hashes([path]), {})
    predictions.write(path, examples.predictions(1))
    with pytest.raises(StateError, match="as stamped"):
        predictions.read(path, stamp)
