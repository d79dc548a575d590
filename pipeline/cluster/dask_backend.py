"""joblib's Dask backend, mended in two places. Importing it imports Dask."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from joblib._dask import DaskDistributedBackend  # what joblib's registry calls "dask"

Callback = Callable[[Any], None]


class DaskBackend(DaskDistributedBackend):  # type: ignore[misc]
    """As it is, but that a single worker is given its work, and that joblib hears of a task that Dask gives up."""

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return at least 2: joblib would do the work of one in this process."""
        return max(2, int(super().effective_n_jobs(n_jobs)))

    def submit(self, func: Callable[[], Any], callback: Callback) -> "Future[Any]":
        """Submit, and call back with what Dask raises, too: joblib would wait for ever."""
        submitted: Future[Any] = super().submit(func, callback)

        def tell(ended: "Future[Any]") -> None:
            if error := ended.exception():
                callback(error)

        submitted.add_done_callback(tell)
        return submitted

    def retrieve_result_callback(self, out: Any) -> Any:  # noqa: ANN401  # whatever a task returns
        """Return a task's result, or raise what Dask did."""
        if isinstance(out, BaseException):
            raise out
        return super().retrieve_result_callback(out)
