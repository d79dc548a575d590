"""What the repository's history needs of the embedding cache: images and recipes, commit by commit."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pyarrow.parquet as pq

from pipeline import locks, manifest, stamps
from pipeline.embeddings import matrix
from pipeline.locks import Lock


@dataclass
class Needed:
    """Images' sha256 and recipes' sha256 that some commit, or the working tree, needs."""

    images: set[str] = field(default_factory=set)
    recipes: set[str] = field(default_factory=set)
    unknown: dict[str, str] = field(default_factory=dict)
    """What nobody can say the needs of, a dvc.lock or an output that one lists -> a line that says why."""


def needed() -> Needed:
    """Read the working tree's manifest and stamps, and those of every commit that git and DVC's cache still hold.

    Raises:
        StateError: if one of them is damaged.

    """
    found = Needed()
    if manifest.MANIFEST.exists():
        found.images.update(manifest.read().sha256)
    for path in sorted(matrix.stamp_path("x").parent.glob("*.json")):
        if not path.name.endswith(".cost.json"):
            found.recipes.update(_recipes(stamps.read(path).facts))
    for where, lock in locks.history():
        if lock is None:
            found.unknown[where] = f"{where}: {locks.LOCK}: not what DVC writes"
            continue
        for output, md5 in _outputs(lock):
            content = locks.read_object(md5)
            if content is None:
                found.unknown.setdefault(md5, f"{where}: {output}: not in DVC's cache")
            elif output == manifest.MANIFEST.as_posix():
                found.images.update(pq.read_table(BytesIO(content), columns=["sha256"])["sha256"].to_pylist())
            else:
                found.recipes.update(_recipes(json.loads(content)["facts"]))
    return found


def _recipes(facts: Mapping[str, Any]) -> Iterator[str]:
    for name in ("recipe", "augmented_recipe"):
        if name in facts:
            yield stamps.sha256_json(facts[name])


def _outputs(lock: Lock) -> Iterator[tuple[str, str]]:
    """Yield path and md5 of the manifests and embeddings' stamps that a dvc.lock lists."""
    folder = matrix.stamp_path("x").parent.as_posix()
    for path, entry in ((path, entry) for stage in lock.values() for path, entry in stage.outs.items()):
        stamp = path.startswith(f"{folder}/") and path.endswith(".json") and not path.endswith(".cost.json")
        if stamp or path == manifest.MANIFEST.as_posix():
            yield path, entry.md5
