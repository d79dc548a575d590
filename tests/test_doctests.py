"""The examples in docstrings are true."""

import doctest
import importlib
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

MODULES = sorted(path for path in (REPOSITORY / "pipeline").rglob("*.py") if ">>> " in path.read_text())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_the_examples_of_a_module_give_what_they_show(path: Path) -> None:
    name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried
    assert not failed
