"""Exact look-ups of millions of keys, by Arrow's hash table: sorting so many strings would take minutes."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Keys = npt.NDArray[np.bytes_]
Ints = npt.NDArray[np.intp]


def places(keys: Keys, held: Keys) -> Ints:
    """Return where each of keys (N,) first stands in held (M,), -1 where it does not: (N,). Both are as long a text."""
    found = pc.index_in(_arrow(keys), value_set=_arrow(held))
    return np.asarray(pc.fill_null(found, -1).to_numpy(), np.intp)


def firsts(keys: Keys) -> npt.NDArray[np.bool_]:
    """Return which of keys (N,) have no equal before them: (N,)."""
    return np.asarray(places(keys, keys) == np.arange(len(keys)))


def _arrow(keys: Keys) -> Any:  # noqa: ANN401  # pyarrow has no types
    """Wrap keys without copying them; Arrow's table of fixed-length values ends at 2 GB, that of long ones does not."""
    size = keys.dtype.itemsize
    offsets = np.arange(len(keys) + 1, dtype=np.int64) * size
    content = np.ascontiguousarray(keys).view(np.uint8)
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(keys), [None, pa.py_buffer(offsets), pa.py_buffer(content)]
    )
