"""The images that a backbone's frozen pass skipped, and how it preprocessed the others.

This is a file of its own beside the matrix, for stages that need no rows: another layer, pooling, dtype or further
view changes the matrix, but not this file, and so retrains no network.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core import artifacts, stamps
from pipeline.core.errors import StateError
from pipeline.data import manifest

OF_ROWS = ("layers", "pooling", "columns", "dtype", "code_version", "schema_version")
"""Keys of a recipe that decide a row, but not the input of the first block."""


path_of = artifacts.SKIPPED.at
"""A backbone's file: a stamp without outputs, whose facts are the content."""


def write(backbone: str, skipped: Mapping[str, str], manifest_sha256: str, recipe: Mapping[str, Any]) -> None:
    """Write image_id -> why it was skipped, and the part of the recipe that says how images are preprocessed."""
    facts = {"skipped": dict(skipped), "seen": _preprocessing(recipe)}
    inputs = {manifest.MANIFEST.as_posix(): manifest_sha256}
    stamps.write(path_of(backbone), stamps.Stamp(f"embed@{backbone}", {}, inputs, facts))


def read(backbone: str) -> Mapping[str, str]:
    """Return image_id -> why it was skipped; StateError if the file is missing or malformed."""
    return of(path_of(backbone), stamps.read(path_of(backbone)))


def of(path: Path, stamp: stamps.Stamp) -> Mapping[str, str]:
    """Return the skipped images in a stamp read from a path; StateError if it is no such list."""
    listed = stamp.facts.get("skipped")
    if not isinstance(listed, dict) or not all(isinstance(reason, str) for reason in listed.values()):
        raise StateError(f"{path}: lists no skipped images; run `dvc repro --force`")
    return listed


def read_for(backbone: str, recipe: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the skipped images, if the list is of the present manifest and of the recipe's preprocessing.

    Raises:
        StateError: if not, or if the file is missing or malformed.

    """
    path, stamp = path_of(backbone), stamps.read(path_of(backbone))
    if stamp.inputs.get(manifest.MANIFEST.as_posix()) != stamps.sha256_file(manifest.MANIFEST):
        raise StateError(f"{path}: made for another manifest; run `dvc repro`")
    recorded = stamp.facts.get("seen")
    recorded = recorded if isinstance(recorded, dict) else {}
    differing = [
        f"{path}: {name}: got {recorded.get(name)!r}, expected {value!r} as in params.yaml; run `dvc repro`"
        for name, value in _preprocessing(recipe).items()
        if stamps.canonical_json(recorded.get(name)) != stamps.canonical_json(value)
    ]
    if differing:
        raise StateError(*differing)
    return of(path, stamp)


def _preprocessing(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in recipe.items() if name not in OF_ROWS}
