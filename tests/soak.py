"""Values that `make soak` alone tries, beside the few of the quick suite."""

from collections.abc import Iterable
from typing import Any

import pytest


def soak(values: Iterable[Any]) -> list[Any]:
    """Mark values of a parameter, each a tuple if there are several parameters."""
    return [pytest.param(*(one if isinstance(one, tuple) else (one,)), marks=pytest.mark.soak) for one in values]
