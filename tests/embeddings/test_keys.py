import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.embeddings.shards import positions_of

keys = st.lists(st.sampled_from([b"a\0", b"a\1", b"\0\0", b"\0a", b"bb"])).map(lambda some: np.array(some, "S2"))


@given(keys, keys)
def test_a_key_has_the_position_of_its_first_equal(wanted: np.ndarray, among: np.ndarray) -> None:
    there = among.tolist()
    assert positions_of(wanted, among).tolist() == [there.index(one) if one in there else -1 for one in wanted.tolist()]
