from pathlib import Path

import numpy as np
import pytest

from pipeline.core import stamps
from pipeline.core.errors import StateError
from pipeline.evaluation.scoring import predictions
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


def test_runs_on_different_images_are_refused_by_name() -> None:
    runs = {
        "tiny/logreg": examples.predictions(n=60),
        "tiny/knn": examples.predictions(1, n=60),
        "tiny/last": examples.predictions(n=59),
    }
    with pytest.raises(
        StateError, match=r"tiny/logreg and tiny/last: predictions on different test images \(60 and 59\)"
    ):
        predictions.require_same_images(runs)


def test_probabilities_that_are_not_numbers_are_refused_with_their_file(tmp_path: Path) -> None:
    path, one = tmp_path / "p.parquet", examples.predictions()
    one.probability[3, 1] = np.nan
    predictions.write(path, one)
    with pytest.raises(StateError, match=r"p\.parquet: holds probabilities that are not numbers"):
        predictions.read(path, stamps.Stamp("train", stamps.hashes([path]), {}))
