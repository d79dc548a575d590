"""Let long work end where it is whole, instead of in the middle of whatever Ctrl-C or SIGTERM hits."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether an interrupt came; the block ends itself, and KeyboardInterrupt follows.

    A second interrupt acts at once, as if there were no block. Outside the main thread, which alone receives signals,
    nothing is deferred.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came = False
    before = {number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))}

    def note(_signum: int, _frame: FrameType | None) -> None:
        nonlocal came
        came = True
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        for number in before:  # one that is ignored, as for work in the background, stays so
            signal.signal(number, note)
        yield lambda: came
    finally:
        restore()
    if came:
        raise KeyboardInterrupt
