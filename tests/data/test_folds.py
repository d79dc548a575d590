"""Folds and hold-outs that keep groups whole, also where there are few groups or some images have none."""

import numpy as np
import pytest

from pipeline.data.splits import folds

Y = np.array(["a", "b"])


@pytest.mark.parametrize("groups", [2, 3, 5, 6])
def test_early_stopping_works_with_fewer_groups_than_the_share_asks_for(groups: int) -> None:
    image = np.arange(60)
    group = np.array([f"g{row % groups}" for row in image])
    y = Y[image // groups % 2]
    fitted, held = folds.hold_out(y, folds.origin_of(image, group), 0.15, 0)
    assert set(group[fitted]).isdisjoint(group[held])
    assert set(y[fitted]) == set(Y)
    assert len(held)


def test_early_stopping_works_with_fewer_images_of_each_class_than_the_share_asks_for() -> None:
    image = np.arange(12)
    group = np.array([f"g{row // 2}" for row in image])
    fitted, held = folds.hold_out(Y[image % 2], folds.origin_of(image, group), 0.15, 0)
    assert set(group[fitted]).isdisjoint(group[held])


def test_a_single_group_is_both_trained_on_and_watched() -> None:
    image = np.arange(60)
    fitted, held = folds.hold_out(Y[image % 2], folds.origin_of(image, np.full(60, "g")), 0.15, 0)
    assert len(fitted) == len(held) == 60


def test_folds_of_some_rows_do_not_depend_on_rows_above_them() -> None:
    """So that validation rows are dealt alike alone and below the training rows, with whom a search judges them."""
    image = np.arange(60)
    group = np.array([f"g{row % 6}" if row < 20 else "" for row in image])
    above = folds.origin_of(np.arange(130), np.concatenate([np.full(70, ""), group]))[70:]
    dealt = [folds.inner(Y[image % 2], origin, 5, 0) for origin in (folds.origin_of(image, group), above)]
    assert all(np.array_equal(one.held, other.held) for one, other in zip(*dealt, strict=True))
