import numpy as np
import pytest

from pipeline.quality import outliers


def test_scores_are_the_modified_z_score_of_the_logarithm() -> None:
    distance = np.exp(np.random.default_rng(0).normal(size=(101, 1)))
    log = np.log(distance[:, 0])
    expected = 0.6745 * (log - np.median(log)) / np.median(np.abs(log - np.median(log)))  # Iglewicz & Hoaglin 1993
    np.testing.assert_allclose(outliers.scores(distance), expected, rtol=1e-4)


def test_the_only_far_image_is_the_only_outlier() -> None:
    distance = np.random.default_rng(0).uniform(1, 2, (200, 10))
    distance[17] = 9
    assert np.flatnonzero(outliers.scores(distance) >= outliers.FAR).tolist() == [17]


def test_so_many_images_are_enough_and_one_less_is_not() -> None:
    distance = np.random.default_rng(0).uniform(1, 2, (outliers.FEWEST, 4))
    assert outliers.scores(distance).any()
    assert not outliers.scores(distance[1:]).any()


@pytest.mark.parametrize("distance", [np.ones((50, 10)), np.zeros((50, 10)), np.ones((5, 4)), np.empty((1, 0))])
def test_equal_distances_and_few_images_are_no_outliers(distance: np.ndarray) -> None:
    assert not outliers.scores(distance).any()
