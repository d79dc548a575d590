import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.embeddings import lookup

keys = st.lists(st.sampled_from([b"a\0", b"a\1", b"\0\0", b"\0a", b"bb"])).map(lambda some: np.array(some, "S2"))


@given(keys, keys)
def test_a_key_is_found_where_it_stands_first(wanted: np.ndarray, held: np.ndarray) -> None:
    there = held.tolist()
    assert lookup.places(wanted, held).tolist() == [there.index(one) if one in there else -1 for one in wanted.tolist()]


@given(keys)
def test_of_equal_keys_only_the_first_has_none_before_it(some: np.ndarray) -> None:
    all_of = some.tolist()
    assert lookup.firsts(some).tolist() == [one not in all_of[:place] for place, one in enumerate(all_of)]
