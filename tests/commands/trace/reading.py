"""Read what `headswap trace` prints."""

from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.core import params
from pipeline.data import manifest
from pipeline.lineage.trace.trace import trace


def lines(what: str) -> list[str]:
    return list(trace(params.load(), what).lines())


def beneath(what: str, heading: str) -> list[str]:
    """Return the lines right beneath a heading."""
    (found,) = [branch for branch in trace(params.load(), what).branches if branch.text == heading]
    return [branch.text for branch in found.branches]


def image_of(split: str) -> str:
    table = manifest.read()
    return table.image_id[table.split.index(split)]


def flip(path: str) -> None:
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2] ^= 1
    Path(path).write_bytes(content)


def refusal(what: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on stderr of a trace that ends with status 2."""
    assert main(["trace", what]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line
