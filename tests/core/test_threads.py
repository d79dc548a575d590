"""Linear algebra on one thread."""

from tests.processors import on_threads


def test_libraries_that_are_loaded_meanwhile_are_bound_too() -> None:
    code = """
import numpy
from threadpoolctl import threadpool_info
from pipeline.core.threads import one_thread
with one_thread():
    import scipy.linalg
    print({one["num_threads"] for one in threadpool_info()} <= {1})
"""
    assert on_threads(code) == {b"True\n"}
