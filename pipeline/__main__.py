"""`headswap`, also as `python -m pipeline`: one command, and then the end of the process."""

import atexit
import os
import sys
from typing import NoReturn

from pipeline.cli import main


def run() -> NoReturn:
    """Run one command and end the process at once: to take torch apart, module by module, would last another second."""
    status = main()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = 120  # as Python itself ends where nobody takes what was printed
    os._exit(status)


if __name__ == "__main__":
    run()
