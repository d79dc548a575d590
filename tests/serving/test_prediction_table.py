import numpy as np

from pipeline.evaluation.unlikeness import UNLIKE
from pipeline.serving.prediction_table import PredictionTable


def test_an_image_as_far_away_as_the_limit_is_unlike_the_training_images() -> None:
    percentile = np.array([np.nextafter(UNLIKE, 0), UNLIKE, 100.0])
    table = PredictionTable(list("abc"), ["red"] * 3, ["red"], np.ones((3, 1)), np.zeros(3), percentile)
    assert table.unlike.tolist() == table.columns()["unlike"] == [False, True, True]
