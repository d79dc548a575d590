"""Linear algebra on one thread: how a sum is dealt to threads decides its last bits."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS and OpenMP work on one thread, so that no result depends on the number of threads or cores.

    Whoever wants several cores deals blocks of a fixed size to a pool, each of which is then computed on one thread.
    """
    # A limit binds only libraries that are loaded by then, and SciPy brings a BLAS of its own.
    import scipy.linalg  # noqa: F401, PLC0415  # a quarter of a second that not every command needs
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # noqa: PLC0415

    with threadpool_limits(1):
        yield
