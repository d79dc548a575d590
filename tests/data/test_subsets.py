"""Parts of the training images: nested, with every class, and the same whatever else there is."""

from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.sections import Curve
from pipeline.data.splits.subsets import Subset, draw


def curve(fractions: list[float], seeds: int = 1) -> Curve:
    return Curve.model_validate({"fractions": fractions, "seeds": seeds, "heads": {}, "plans": []})


def drawn(targets: list[int], settings: Curve, seed: int = 0, at_least: int = 1) -> list[Subset]:
    contents = [f"image {row}" for row in range(len(targets))]
    return draw(np.arange(len(targets)), np.array(targets), contents, [""] * len(targets), settings, seed, at_least)


classes = st.lists(st.integers(0, 3), min_size=1, max_size=80)
fractions = st.lists(st.floats(0.01, 1), min_size=1, max_size=5, unique=True).map(sorted)


@given(classes, fractions, st.integers(1, 3), st.integers(1, 5))
def test_the_subsets_of_a_seed_are_nested_and_contain_every_class(
    targets: list[int], parts: list[float], seeds: int, at_least: int
) -> None:
    found = drawn(targets, curve(parts, seeds), at_least=at_least)
    for seed in range(seeds):
        rows = [set(subset.rows.tolist()) for subset in found if subset.seed == seed]
        assert all(small < large for small, large in pairwise(rows))
        held = Counter(targets[row] for row in rows[0])
        assert all(held[one] >= min(at_least, number) for one, number in Counter(targets).items())


@given(classes, fractions)
def test_all_seeds_give_the_same_sizes(targets: list[int], parts: list[float]) -> None:
    found = drawn(targets, curve(parts, 3))
    sizes = [[len(subset.rows) for subset in found if subset.seed == seed] for seed in range(3)]
    assert sizes[0] == sizes[1] == sizes[2]


def test_a_fraction_is_taken_of_every_class() -> None:
    targets = [0] * 40 + [1] * 20
    (subset,) = drawn(targets, curve([0.25]))
    assert Counter(targets[row] for row in subset.rows) == {0: 10, 1: 5}


def test_another_seed_gives_other_images_unless_all_are_taken() -> None:
    targets = [0] * 40
    half, everything, other, again = drawn(targets, curve([0.5, 1.0], 2))
    assert half.rows.tolist() != other.rows.tolist()
    assert everything.rows.tolist() == again.rows.tolist() == list(range(40))
    assert drawn(targets, curve([0.5]), seed=1)[0].rows.tolist() == other.rows.tolist()


def test_fractions_with_the_same_images_give_one_subset() -> None:
    found = drawn([0, 0, 1, 1, 1, 1], curve([0.01, 0.1, 1.0]), at_least=2)
    assert [len(subset.rows) for subset in found] == [4, 6]


def test_only_training_rows_are_taken() -> None:
    train = np.array([1, 3, 5])
    (subset,) = draw(train, np.zeros(6, np.int64), list("abcdef"), [""] * 6, curve([1.0]), 0, 1)
    assert subset.rows.tolist() == [1, 3, 5]


def test_every_group_gives_an_image_before_one_gives_a_second() -> None:
    groups = ["a"] * 6 + ["b", "b", "c"]
    contents = [f"image {row}" for row in range(9)]
    found = draw(np.arange(9), np.zeros(9, np.int64), contents, groups, curve([0.3, 0.5, 1.0]), 0, 1)
    assert [sorted(groups[row] for row in subset.rows) for subset in found] == [
        list("abc"),
        list("aabbc"),
        sorted(groups),
    ]
