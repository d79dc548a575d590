"""Which rows of the embedding cache the repository's history needs: images and recipes, commit by commit."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.core import artifacts, locks, stamps
from pipeline.core.errors import StateError
from pipeline.core.locks import Lock
from pipeline.data import manifest
from pipeline.embeddings import matrix


@dataclass
class Needed:
    """The sha256 of images and of recipes that some commit, or the working tree, needs."""

    images: set[str] = field(default_factory=set)
    recipes: set[str] = field(default_factory=set)
    unknown: dict[str, str] = field(default_factory=dict)
    """A dvc.lock, or an output that one lists, whose needs cannot be read -> a line that says why."""


def needed() -> Needed:
    """Read the manifest and stamps of the working tree, and of every commit, as far as git and DVC's cache hold them.

    Raises:
        StateError: if one in the working tree is damaged.

    """
    found = Needed()
    if manifest.MANIFEST.exists():
        found.images.update(manifest.read().sha256)
    for path in artifacts.EMBEDDINGS.stamps_here():
        if matrix.is_stamp(path):
            found.recipes.update(_recipes(stamps.read(path).facts, str(path)))
    for where, lock in locks.history():
        if lock is None:
            found.unknown[where] = f"{where}: {locks.LOCK}: not what DVC writes"
            continue
        for output, md5 in _outputs(lock):
            content = locks.read_object(md5)
            if content is None:
                found.unknown.setdefault(md5, f"{where}: {output}: not in DVC's cache")
                continue
            try:
                _add(found, output, content)
            except StateError as error:  # committed like this: nobody can repair history
                found.unknown.setdefault(md5, f"{where}: {output}: {error}")
    return found


def _add(found: Needed, output: str, content: bytes) -> None:
    """Add the needs of a manifest or a stamp from DVC's cache; StateError if it is neither."""
    if output == manifest.MANIFEST.as_posix():
        found.images.update(manifest.columns_of(content, ["sha256"])[0])
        return
    try:
        facts = json.loads(content)["facts"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StateError("not a stamp") from error
    found.recipes.update(_recipes(facts, "facts"))


def _recipes(facts: Any, where: str) -> list[str]:  # noqa: ANN401  # any JSON
    try:
        return [stamps.sha256_json(facts[name]) for name in ("recipe", "augmented_recipe") if name in facts]
    except (ValueError, TypeError, RecursionError) as error:
        raise StateError(f"{where}: recipe: not what `embed` writes") from error


def _outputs(lock: Lock) -> Iterator[tuple[str, str]]:
    """Yield path and md5 of each manifest and each embeddings' stamp that a dvc.lock lists."""
    for path, entry in ((path, entry) for stage in lock.values() for path, entry in stage.outs.items()):
        if matrix.is_stamp(Path(path)) or path == manifest.MANIFEST.as_posix():
            yield path, entry.md5
