"""A worker for which a folder is not there: Python runs this first where the folder is on its path."""

import os
import sys

HIDDEN = os.environ["HIDDEN"]


def hide(event, arguments):
    if event == "open" and str(arguments[0]).startswith(HIDDEN):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])


sys.addaudithook(hide)
