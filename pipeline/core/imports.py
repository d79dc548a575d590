"""Import a module as if one of its optional dependencies were not installed."""

import importlib
import sys
from types import ModuleType


def import_without(name: str, hidden: str) -> ModuleType:
    """Import `name` while importing `hidden` fails, unless either is loaded already; ImportError as usual."""
    if name in sys.modules or hidden in sys.modules:
        return importlib.import_module(name)
    sys.modules[hidden] = None  # type: ignore[assignment]  # Python's own way to make one import fail
    try:
        return importlib.import_module(name)
    finally:
        del sys.modules[hidden]
