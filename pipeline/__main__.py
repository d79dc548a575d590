"""`headswap`, also as `python -m pipeline`: one command, and then the end of the process."""

import atexit
import os
import sys
from typing import NoReturn

from pipeline.cli import main

UNREAD = 120
"""As Python itself ends where nobody takes what was printed."""


def run() -> NoReturn:
    """Run one command and end the process at once: to take torch apart, module by module, would last another second."""
    try:
        status = main()
    except OSError:  # of a print, for `main` words all others: `| head` has gone, or the disk is full
        status = UNREAD
    except SystemExit as ended:  # argparse has printed help or usage
        status = ended.code if isinstance(ended.code, int) else 1
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # as behind `>&-`
                stream.flush()
    except OSError:
        status = UNREAD
    os._exit(status)


if __name__ == "__main__":
    run()
