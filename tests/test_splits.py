import hashlib
from collections import Counter
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import splits
from pipeline.errors import InputError
from pipeline.manifest import Record
from pipeline.params import Split


def records(*labels: str, **columns: list[str | None]) -> list[Record]:
    return [
        Record(PurePosixPath(f"{n}.png"), label, **{name: values[n] for name, values in columns.items()})  # type: ignore[arg-type]
        for n, label in enumerate(labels)
    ]


def contents(number: int) -> list[str]:
    return [hashlib.sha256(str(n).encode()).hexdigest() for n in range(number)]


def test_the_hash_split_follows_the_published_formula() -> None:
    given_records, keys = records(*"ab" * 100), contents(200)
    for key, split in zip(keys, splits.assign(given_records, keys, Split(val=0.2, test=0.3), seed=7), strict=True):
        u = int.from_bytes(hashlib.sha256(f"7:{key}".encode()).digest()[:8], "big") / 2**64
        assert split == ("test" if u < 0.3 else "val" if u < 0.5 else "train")


@given(st.permutations(range(40)), st.integers(30, 40))
def test_with_hash_adding_or_reordering_images_never_moves_one(order: list[int], keep: int) -> None:
    keys = contents(40)
    everything = splits.METHODS["hash"](records(*"a" * 40), keys, Split(), 0)
    some = order[:keep]
    assert splits.METHODS["hash"](records(*"a" * keep), [keys[n] for n in some], Split(), 0) == [
        everything[n] for n in some
    ]


@pytest.mark.parametrize("method", ["hash", "stratified"])
@given(repeats=st.lists(st.integers(0, 9), min_size=20, max_size=40), seed=st.integers(0, 99))
def test_exact_duplicates_and_groups_never_straddle(method: str, repeats: list[int], seed: int) -> None:
    keys = [contents(10)[n] for n in repeats]
    by_content = splits.METHODS[method](records(*"a" * len(keys)), keys, Split(), seed)
    assert all(len({s for k, s in zip(keys, by_content, strict=True) if k == key}) == 1 for key in keys)
    groups: list[str | None] = [f"g{n}" for n in repeats]
    by_group = splits.METHODS[method](records(*"a" * len(keys), group=groups), contents(len(keys)), Split(), seed)
    assert all(len({s for g, s in zip(groups, by_group, strict=True) if g == group}) == 1 for group in groups)


@pytest.mark.parametrize("method", ["hash", "stratified"])
@given(copies=st.lists(st.integers(0, 6), min_size=20, max_size=40), seed=st.integers(0, 99))
def test_equal_bytes_in_different_groups_never_straddle(method: str, copies: list[int], seed: int) -> None:
    keys = [contents(7)[n] for n in copies]
    groups: list[str | None] = [f"g{row % 11}" if row % 3 else None for row in range(len(keys))]
    dealt = splits.METHODS[method](records(*"a" * len(keys), group=groups), keys, Split(), seed)
    for same in (keys, groups):
        for one in set(same) - {None}:
            assert len({split for name, split in zip(same, dealt, strict=True) if name == one}) == 1


def test_predefined_refuses_the_same_bytes_in_two_splits() -> None:
    said: list[str | None] = ["train", "test", "val"]
    with pytest.raises(InputError, match="0.png: the same bytes are also in split 'test', here in 'train'"):
        splits.assign(records(*"aab", split=said), ["k", "k", "m"], Split(method="predefined"), 0)


def test_stratified_keeps_the_fractions_in_every_label_and_stratum() -> None:
    labels, strata = ["a"] * 80 + ["b"] * 20, (["x", "y"] * 50)
    dealt = splits.assign(records(*labels, stratum=strata), contents(100), Split(method="stratified", val=0.1, test=0.3), 0)  # type: ignore[arg-type]  # fmt: skip  # noqa: E501
    cells = Counter(zip(labels, strata, dealt, strict=True))
    assert {cells["a", s, "test"] for s in "xy"} == {12}
    assert {cells["b", s, "test"] for s in "xy"} == {3}
    assert {cells["b", s, "val"] for s in "xy"} == {1}


def test_predefined_takes_what_the_source_says() -> None:
    said: list[str | None] = ["train", "val", "test"] * 2
    assert splits.assign(records(*"aaabbb", split=said), contents(6), Split(method="predefined"), 0) == said


def test_predefined_names_what_it_does_not_know() -> None:
    with pytest.raises(InputError, match=r"0\.png: split: got 'trian'.*did you mean 'train'"):
        splits.assign(records(*"ab", split=["trian", "test"]), contents(2), Split(method="predefined"), 0)


def test_a_class_with_too_few_images_is_named_with_its_counts() -> None:
    labels = ["a"] * 50 + ["rare"] * 2
    with pytest.raises(InputError, match=r"class 'rare': got 2 images.*expected at least 1 in each"):
        splits.assign(records(*labels), contents(52), Split(method="stratified"), 0)


def test_a_single_class_is_refused() -> None:
    with pytest.raises(InputError, match="got 1 class"):
        splits.assign(records(*"a" * 50), contents(50), Split(method="stratified"), 0)


def test_another_seed_is_another_split() -> None:
    args = records(*"ab" * 50), contents(100), Split(method="stratified")
    assert splits.assign(*args, 0) != splits.assign(*args, 1)
