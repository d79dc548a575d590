import hashlib
from collections import Counter
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import InputError
from pipeline.core.sections import Split
from pipeline.data.manifest import Record
from pipeline.data.splits import methods


def records(*labels: str, **columns: list[str | None]) -> list[Record]:
    return [
        Record(f"{n}.png", label, **{name: values[n] for name, values in columns.items()})  # type: ignore[arg-type]
        for n, label in enumerate(labels)
    ]


def contents(number: int) -> list[str]:
    return [hashlib.sha256(str(n).encode()).hexdigest() for n in range(number)]


def test_the_hash_split_follows_the_published_formula() -> None:
    given_records, keys = records(*"ab" * 100), contents(200)
    for key, split in zip(keys, methods.assign(given_records, keys, Split(val=0.2, test=0.3), seed=7), strict=True):
        u = int.from_bytes(hashlib.sha256(f"7:{key}".encode()).digest()[:8], "big") / 2**64
        assert split == ("test" if u < 0.3 else "val" if u < 0.5 else "train")


@pytest.mark.parametrize("method", ["hash", "grouped"])
@given(st.permutations(range(40)), st.integers(1, 40), st.lists(st.integers(0, 9), min_size=40, max_size=40))
def test_adding_or_reordering_images_never_moves_one(method: str, order: list[int], keep: int, of: list[int]) -> None:
    keys, groups = contents(40), [f"g{n}" if method == "grouped" or n % 2 else None for n in of]

    def dealt(rows: list[int]) -> list[str]:
        given_records = records(*"a" * len(rows), group=[groups[row] for row in rows])
        return methods.METHODS[method](given_records, [keys[row] for row in rows], Split(), 0)

    everything, some = dealt(list(range(40))), order[:keep]
    assert dealt(some) == [everything[n] for n in some]


@pytest.mark.parametrize("method", ["hash", "stratified"])
@given(repeats=st.lists(st.integers(0, 9), min_size=20, max_size=40), seed=st.integers(0, 99))
def test_exact_duplicates_and_groups_stay_in_one_split(method: str, repeats: list[int], seed: int) -> None:
    keys = [contents(10)[n] for n in repeats]
    by_content = methods.METHODS[method](records(*"a" * len(keys)), keys, Split(), seed)
    assert all(len({s for k, s in zip(keys, by_content, strict=True) if k == key}) == 1 for key in keys)
    groups: list[str | None] = [f"g{n}" for n in repeats]
    by_group = methods.METHODS[method](records(*"a" * len(keys), group=groups), contents(len(keys)), Split(), seed)
    assert all(len({s for g, s in zip(groups, by_group, strict=True) if g == group}) == 1 for group in groups)


@pytest.mark.parametrize("method", ["hash", "grouped", "stratified"])
@given(
    rows=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=5, max_size=30), seed=st.integers(0, 99)
)
def test_copies_in_several_groups_stay_in_one_split(method: str, rows: list[tuple[int, int]], seed: int) -> None:
    keys = [contents(31)[copy] for copy, _ in rows]
    groups: list[str | None] = [f"g{group}" if group % 3 or method == "grouped" else None for _, group in rows]
    dealt = methods.METHODS[method](records(*"a" * len(keys), group=groups), keys, Split(), seed)
    for same in (keys, groups):
        for one in set(same) - {None}:
            assert len({split for name, split in zip(same, dealt, strict=True) if name == one}) == 1


@pytest.mark.parametrize("method", ["hash", "grouped", "stratified"])
def test_groups_that_share_an_image_are_merged_and_counted(method: Literal["hash", "grouped", "stratified"]) -> None:
    groups: list[str | None] = ["c", "b", "b", "a", "d"]
    given_records, settings = records(*"aaaaa", group=groups), Split(method=method)
    shared = ["k", "k", "m", "m", "n"]  # c and b by one image, b and a by another
    assert len(set(methods.METHODS[method](given_records, shared, settings, 0)[:4])) == 1
    assert methods.merged(given_records, shared, settings) == 2
    assert methods.merged(given_records, contents(5), settings) == 0


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=2, max_size=20), st.integers(0, 12),
    st.integers(0, 12),
)  # fmt: skip
def test_an_added_image_moves_only_a_group_that_it_merges_into_one_of_a_smaller_name(
    rows: list[tuple[int, int]], copy: int, group: int
) -> None:
    def dealt(rows: list[tuple[int, int]]) -> tuple[list[str], list[str]]:
        keys, groups = [contents(13)[copy] for copy, _ in rows], [f"g{group}" if group else None for _, group in rows]
        given_records = records(*"a" * len(rows), group=groups)
        return methods._units(given_records, keys), methods.METHODS["hash"](given_records, keys, Split(), 0)

    units, before = dealt(rows)
    joined, after = dealt([*rows, (copy, group)])
    for row, (old, new) in enumerate(zip(units, joined, strict=False)):
        if old == new:
            assert before[row] == after[row]
        else:
            assert new == joined[-1]
            assert new < old or not old.startswith("g")


def test_copies_without_a_group_follow_the_group() -> None:
    groups: list[str | None] = [None, "g1", "g1", None]
    units = methods._units(records(*"aaaa", group=groups), ["k", "k", "m", "n"])
    assert units == ["g1", "g1", "g1", "n"]


def test_grouped_needs_a_group_of_every_image() -> None:
    with pytest.raises(InputError, match=r"1.png: no group, which split.method: grouped needs"):
        methods.assign(records(*"ab", group=["g", None]), contents(2), Split(method="grouped"), 0)


def test_an_empty_split_is_reported_in_one_line() -> None:
    with pytest.raises(InputError) as caught:
        methods.assign(records(*"ab" * 9, split=["train"] * 18), contents(18), Split(method="predefined"), 0)
    (problem,) = caught.value.problems
    assert "got no image in test" in problem


def test_a_hundred_thousand_classes_are_refused_in_six_lines() -> None:
    labels = [str(n) for n in range(100_000)]
    with pytest.raises(InputError) as caught:
        methods.assign(records(*labels), contents(100_000), Split(), 0)
    assert len(caught.value.problems) == 6
    assert caught.value.problems[-1] == "... 100000 classes in all"


def test_predefined_refuses_the_same_bytes_in_two_splits() -> None:
    said: list[str | None] = ["train", "test", "val"]
    with pytest.raises(InputError, match="0.png: the same bytes are also in split 'test', here in 'train'"):
        methods.assign(records(*"aab", split=said), ["k", "k", "m"], Split(method="predefined"), 0)


def test_stratified_keeps_the_fractions_in_every_label_and_stratum() -> None:
    labels, strata = ["a"] * 80 + ["b"] * 20, (["x", "y"] * 50)
    dealt = methods.assign(records(*labels, stratum=strata), contents(100), Split(method="stratified", val=0.1, test=0.3), 0)  # type: ignore[arg-type]  # fmt: skip  # noqa: E501
    cells = Counter(zip(labels, strata, dealt, strict=True))
    assert {cells["a", s, "test"] for s in "xy"} == {12}
    assert {cells["b", s, "test"] for s in "xy"} == {3}
    assert {cells["b", s, "val"] for s in "xy"} == {1}


def test_predefined_uses_the_split_of_the_source() -> None:
    said: list[str | None] = ["train", "val", "test"] * 2
    assert methods.assign(records(*"aaabbb", split=said), contents(6), Split(method="predefined"), 0) == said


def test_predefined_names_an_unknown_split() -> None:
    with pytest.raises(InputError, match=r"0\.png: split: got 'trian'.*did you mean 'train'"):
        methods.assign(records(*"ab", split=["trian", "test"]), contents(2), Split(method="predefined"), 0)


def test_a_class_with_too_few_images_is_named_with_its_counts() -> None:
    labels = ["a"] * 50 + ["rare"] * 2
    with pytest.raises(InputError, match=r"class 'rare': got 2 images.*expected at least 1 in each"):
        methods.assign(records(*labels), contents(52), Split(method="stratified"), 0)


def test_a_single_class_is_refused() -> None:
    with pytest.raises(InputError, match="got 1 class"):
        methods.assign(records(*"a" * 50), contents(50), Split(method="stratified"), 0)


def test_another_seed_gives_another_split() -> None:
    args = records(*"ab" * 50), contents(100), Split(method="stratified")
    assert methods.assign(*args, 0) != methods.assign(*args, 1)


def test_without_validation_images_some_training_images_validate_and_test_stays() -> None:
    given_records = records(*"ab" * 100, split=["train", "train", "test", "test"] * 50)
    dealt = methods.assign(given_records, contents(200), Split(method="predefined", val=0.2), seed=0)
    assert [split == "test" for split in dealt] == [record.split == "test" for record in given_records]
    assert 10 < dealt.count("val") < 30


def test_without_test_images_a_predefined_split_is_refused() -> None:
    with pytest.raises(InputError, match="got no image in test"):
        methods.assign(records(*"ab", split=["train", "val"]), contents(2), Split(method="predefined"), seed=0)
