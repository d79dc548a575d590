"""Forge files so that their stamps agree with them."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline.core import stamps
from pipeline.data import manifest


def stamp_anew(path: Path, **inputs: str) -> None:
    """Make a stamp agree with the files beside it."""
    old = stamps.read(path)
    stamps.write(path, stamps.Stamp(**{**asdict(old), "outputs": stamps.hashes(map(Path, old.outputs))}))


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def write_manifest(**columns: Any) -> None:
    manifest.write(replace(manifest.read(), **columns), dict(stamps.read(manifest.STAMP).facts))
