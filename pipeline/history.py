"""What the repository's history needs of the embedding cache: images and recipes, commit by commit."""

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline import manifest, stamps
from pipeline.embeddings import matrix
from pipeline.errors import StateError

LOCK = Path("dvc.lock")


@dataclass
class Needed:
    """Images' sha256 and recipes' sha256 that some commit, or the working tree, needs."""

    images: set[str] = field(default_factory=set)
    recipes: set[str] = field(default_factory=set)
    unknown: dict[str, str] = field(default_factory=dict)
    """Output that DVC's cache no longer holds, so that nobody can say what it needs -> where it is listed."""


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
    objects = _objects()
    for where, lock in _locks():
        for output, md5 in _outputs(lock):
            content = _object(objects, md5)
            if content is None:
                found.unknown.setdefault(md5, f"{where}: {output}")
            elif output == manifest.MANIFEST.as_posix():
                found.images.update(pq.read_table(BytesIO(content), columns=["sha256"])["sha256"].to_pylist())
            else:
                found.recipes.update(_recipes(json.loads(content)["facts"]))
    return found


def _recipes(facts: Mapping[str, Any]) -> Iterator[str]:
    for name in ("recipe", "augmented_recipe"):
        if name in facts:
            yield stamps.sha256_json(facts[name])


def _locks() -> Iterator[tuple[str, bytes]]:
    """Yield every distinct dvc.lock, with where it stands."""
    if LOCK.exists():
        yield str(LOCK), LOCK.read_bytes()
    seen = set()
    for commit in _git("log", "--all", "--full-history", "--format=%H", "--", str(LOCK)).decode().split():
        blob = _git("rev-parse", "--quiet", "--verify", f"{commit}:./{LOCK}").decode().strip()
        if blob and blob not in seen:
            seen.add(blob)
            yield f"commit {commit[:10]}", _git("cat-file", "blob", blob)


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, check=False).stdout  # noqa: S603, S607
    except FileNotFoundError:  # no git, no history
        return b""


def _outputs(lock: bytes) -> Iterator[tuple[str, str]]:
    """Yield path and md5 of the manifests and embeddings' stamps that a dvc.lock lists."""
    try:
        stages = (YAML(typ="safe").load(lock) or {}).get("stages", {})
        outputs = [(out["path"], out["md5"]) for stage in stages.values() for out in stage.get("outs", [])]
    except (YAMLError, AttributeError, KeyError, TypeError) as error:
        raise StateError(f"{LOCK}: not what DVC writes ({' '.join(str(error).split())})") from error
    folder = matrix.stamp_path("x").parent.as_posix()
    for path, md5 in outputs:
        stamp = path.startswith(f"{folder}/") and path.endswith(".json") and not path.endswith(".cost.json")
        if stamp or path == manifest.MANIFEST.as_posix():
            yield path, md5


def _objects() -> Path | None:
    """Return where DVC keeps its objects; None outside a DVC repository."""
    from dvc.exceptions import NotDvcRepoError  # noqa: PLC0415  # seconds
    from dvc.repo import Repo  # noqa: PLC0415

    try:
        with Repo() as repository:
            return Path(repository.cache.local.path)
    except NotDvcRepoError:
        return None


def _object(objects: Path | None, md5: str) -> bytes | None:
    """Return an object whose bytes have its md5, or None; it is not parsed before that is known."""
    if objects is None or not (path := objects / md5[:2] / md5[2:]).is_file():
        return None
    content = stamps.read_bytes(path)
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise StateError(f"{path}: md5 is not {md5}: altered since DVC stored it; run `dvc fetch`")
    return content
