"""What a backbone's pass says of the images to those who need no row of it: which it left out, and how it saw them.

A file of its own, beside the matrix: other layers, pooling, number type or further views change that, and do not
retrain a network.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core import artifacts, stamps
from pipeline.core.errors import StateError
from pipeline.data import manifest

OF_ROWS = ("layers", "pooling", "columns", "dtype", "code_version", "schema_version")
"""What of a recipe decides a row, and not how an image comes to the first block."""


path_of = artifacts.SKIPPED.at
"""Of a backbone: a stamp without outputs, for it is its own content."""


def write(backbone: str, skipped: Mapping[str, str], manifest_sha256: str, recipe: Mapping[str, Any]) -> None:
    """Write image_id -> why it was left out, and what of the pass's recipe says how the others were seen."""
    facts = {"skipped": dict(skipped), "seen": _seen(recipe)}
    inputs = {manifest.MANIFEST.as_posix(): manifest_sha256}
    stamps.write(path_of(backbone), stamps.Stamp(f"embed@{backbone}", {}, inputs, facts))


def read(backbone: str) -> Mapping[str, str]:
    """Return image_id -> why it was left out; StateError if the file is missing or malformed."""
    return of(path_of(backbone), stamps.read(path_of(backbone)))


def of(path: Path, stamp: stamps.Stamp) -> Mapping[str, str]:
    """Return what a stamp that lies at a path lists; StateError if it is no such list."""
    listed = stamp.facts.get("skipped")
    if not isinstance(listed, dict) or not all(isinstance(reason, str) for reason in listed.values()):
        raise StateError(f"{path}: lists no skipped images; run `dvc repro --force`")
    return listed


def read_for(backbone: str, recipe: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the list if it was made for today's manifest, by a pass that saw images as the recipe does.

    Raises:
        StateError: if not, or if the file is missing or malformed.

    """
    path, stamp = path_of(backbone), stamps.read(path_of(backbone))
    if stamp.inputs.get(manifest.MANIFEST.as_posix()) != stamps.sha256_file(manifest.MANIFEST):
        raise StateError(f"{path}: made for another manifest; run `dvc repro`")
    stated, told = _seen(recipe), stamp.facts.get("seen")
    told = told if isinstance(told, dict) else {}
    differing = [
        f"{path}: {name}: got {told.get(name)!r}, expected {value!r} as in params.yaml; run `dvc repro`"
        for name, value in stated.items()
        if stamps.canonical_json(told.get(name)) != stamps.canonical_json(value)
    ]
    if differing:
        raise StateError(*differing)
    return of(path, stamp)


def _seen(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in recipe.items() if name not in OF_ROWS}
