"""The chance level: what always predicting the largest class of the test images would reach."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.scoring.metrics import OF_COUNTS


class Chance(NamedTuple):
    """The largest class and the score of always predicting it, as a share."""

    largest_class: str
    score: float


def chance_level(metric: str, test_images: Mapping[str, int]) -> Chance:
    """Return the chance level of a metric of OF_COUNTS; `test_images` has how many there are of each class."""
    largest = max(test_images, key=lambda name: test_images[name])
    actual = np.array([list(test_images.values())], dtype=float)
    named = np.array([[name == largest for name in test_images]])
    score = OF_COUNTS[metric](actual, np.where(named, actual.sum(), 0.0), np.where(named, actual, 0.0))
    return Chance(largest, float(score[0]))
