"""joblib's Dask backend with two corrections. Importing it imports Dask."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from joblib._dask import DaskDistributedBackend  # what joblib's registry calls "dask"

Callback = Callable[[Any], None]


class DaskBackend(DaskDistributedBackend):  # type: ignore[misc]
    """Sends work to a single worker, too, and tells joblib of a task that Dask gives up."""

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return at least 2: with 1, joblib would compute in this process."""
        return max(2, int(super().effective_n_jobs(n_jobs)))

    def submit(self, func: Callable[[], Any], callback: Callback) -> "Future[Any]":
        """Submit, and call back with Dask's errors, too: joblib would wait for ever."""
        submitted: Future[Any] = super().submit(func, callback)

        def tell(ended: "Future[Any]") -> None:
            if error := ended.exception():
                callback(error)

        submitted.add_done_callback(tell)
        return submitted

    def retrieve_result_callback(self, out: Any) -> Any:  # noqa: ANN401  # whatever a task returns
        """Return a task's result, or raise Dask's error."""
        if isinstance(out, BaseException):
            raise out
        return super().retrieve_result_callback(out)
