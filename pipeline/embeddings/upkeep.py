"""Upkeep of the cache as a whole: list its recipes, verify and merge its shards, remove rows that nobody needs.

Whatever is rewritten is written before anything is unlinked, and the rows stay bit for bit the same: a kill in between,
or a reader or writer beside it, loses nothing but time.
"""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pipeline.core import stamps
from pipeline.core.atomic import remove_if_stale, still_there, write_json
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.embeddings import indexes
from pipeline.embeddings.matrix import comparable
from pipeline.embeddings.shards import SCHEMA_VERSION, read_shard, sha256_of, write_shard

SMALL_ROWS = 2048
"""Shards of fewer rows are merged, up to about as many."""

Mask = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint8]
"""(n, 32)."""


@dataclass(frozen=True)
class Stored:
    """One recipe's folder."""

    folder: Path
    recipe: Mapping[str, Any]
    shards: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """The size of its shards."""
        return sum(looks.st_size for _, looks in still_there(self.shards))

    @property
    def is_current(self) -> bool:
        """Whether its shards are of the layout that is written now."""
        return bool(self.recipe.get("schema_version") == SCHEMA_VERSION)


@dataclass
class Change:
    """What an upkeep did, or would do: rows, shards and bytes that are gone."""

    rows: int = 0
    shards: int = 0
    bytes: int = 0

    def __iadd__(self, other: "Change") -> Self:
        """Add another one up."""
        self.rows, self.shards, self.bytes = (
            self.rows + other.rows, self.shards + other.shards, self.bytes + other.bytes
        )  # fmt: skip
        return self


def recipes(root: Path) -> list[Stored]:
    """Return what the cache holds, sorted by folder; links are not followed.

    Raises:
        StateError: if a folder's recipe.json is missing, malformed, or not the one the folder is named by.

    """
    folders = [path for path in sorted(root.glob("*")) if len(path.name) == 64 and path.is_dir()]
    return [_stored(folder) for folder in folders if not folder.is_symlink()]


def _stored(folder: Path) -> Stored:
    path = folder / "recipe.json"
    try:
        recipe = json.loads(stamps.read_bytes(path))
    except (ValueError, StateError) as error:
        raise StateError(f"{path}: missing or malformed; delete the folder, and its rows are computed again") from error
    if stamps.sha256_json(recipe) != folder.name:
        raise StateError(f"{path}: is not the recipe its folder is named by; delete the folder")
    shards = tuple(path for path in sorted(folder.glob("*.h5")) if not path.is_symlink())
    return Stored(folder, recipe, shards)


def verify(shards: Sequence[Path]) -> Iterator[str | None]:
    """Read every shard; yield what is wrong with each, or None."""
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
        yield from pool.map(_damage, shards)


def _damage(path: Path) -> str | None:
    try:
        read_shard(path)
    except StateError as error:
        return str(error)
    return None


def remove(stored: Stored, *, dry: bool) -> Change:
    """Remove a recipe with all it holds, of whatever layout, and say what that is."""
    rows = sum(len(read_shard(path).keys) for path in stored.shards) if stored.is_current else 0
    change = Change(rows, len(stored.shards), stored.bytes)
    if not dry:
        for path in stored.shards:
            path.unlink(missing_ok=True)
        indexes.drop(stored.folder)
        _tidy(stored.folder)
    return change


def prune(stored: Stored, images: Hashes, *, dry: bool) -> Change:
    """Remove the rows of all other images, and say how many; a shard that holds both kinds is rewritten."""
    change = Change()
    for path in stored.shards:
        change += _keep(path, held(path, images), dry=dry)
    if not dry:
        indexes.drop(stored.folder)  # they name what is gone
        _tidy(stored.folder)
    return change


def forget(stored: Stored, images: Hashes, *, dry: bool) -> Change:
    """Remove the rows of these images, in every view, and say how many; other rows of their shards are kept.

    What cannot be read cannot be shown not to hold them: damaged shards, and all of an older layout, are removed whole,
    and count no rows. Indexes go first, so that a kill leaves none that names an image whose rows are gone, and last
    once more, for a reader may have written one meanwhile.
    """
    if not stored.is_current:
        return remove(stored, dry=dry)
    change = Change()
    if not dry:
        indexes.drop(stored.folder)
    for path in stored.shards:
        try:
            keep = ~held(path, images)
        except StateError:
            change += Change(0, 1, path.stat().st_size)
            if not dry:
                path.unlink()
            continue
        change += _keep(path, keep, dry=dry)
    if not dry:
        indexes.drop(stored.folder)
        _tidy(stored.folder)
    return change


def held(shard: Path, images: Hashes) -> Mask:
    """Return which rows of a shard are of one of the images: (n,); StateError as `read_shard`."""
    return np.asarray(np.isin(comparable(sha256_of(read_shard(shard).keys)), comparable(images)))


def _keep(path: Path, keep: Mask, *, dry: bool) -> Change:
    """Rewrite a shard with some of its rows only, and say what that takes away."""
    if keep.all():
        return Change()
    change = Change(int((~keep).sum()), 1, int(path.stat().st_size * (1 - keep.mean())))
    if not dry:
        _rewrite([path], [keep])
    return change


def merge(stored: Stored) -> Change:
    """Put small shards of neighbouring age together, leaving out rows that an older shard holds as well.

    A merged shard counts as old as its oldest part. Only rows that nothing older holds are in it, so every row that
    was the oldest of its key still is.
    """
    change = Change()
    batches: list[dict[Path, Mask]] = [{}]
    for path, first in _first_holders(stored.shards):
        if len(first) < SMALL_ROWS:
            if sum(map(len, batches[-1].values())) + len(first) > SMALL_ROWS:
                batches.append({})
            batches[-1][path] = first
    for batch in batches:
        if len(batch) > 1:
            before = sum(path.stat().st_size for path in batch)
            written = _rewrite(list(batch), list(batch.values()))
            change.rows += sum(int((~first).sum()) for first in batch.values())
            change.shards += len(batch) - (written is not None)
            change.bytes += before - (written.stat().st_size if written else 0)
    if change.shards:
        indexes.drop(stored.folder)
    return change


def _first_holders(shards: Sequence[Path]) -> list[tuple[Path, Mask]]:
    """Return the shards, oldest first, each with which of its rows no older one holds."""
    if not shards:
        return []
    listed = [(shard.created_ns, shard.path, shard.keys) for shard in map(read_shard, shards)]
    listed.sort(key=lambda one: one[:2])
    joined = np.concatenate([keys for _, _, keys in listed])
    first = np.zeros(len(joined), bool)
    first[np.unique(joined, return_index=True)[1]] = True
    ends = np.cumsum([len(keys) for _, _, keys in listed])[:-1]
    return [(path, part) for (_, path, _), part in zip(listed, np.split(first, ends), strict=True)]


def _rewrite(paths: Sequence[Path], keeps: Sequence[Mask]) -> Path | None:
    """Replace shards of one recipe by one that holds the rows to keep, or by none."""
    parts = [(read_shard(path), keep) for path, keep in zip(paths, keeps, strict=True) if keep.any()]
    written: Path | None = None
    if parts:
        cost = sum((shard.cost * keep.mean() for shard, keep in parts), Cost())
        written = write_shard(
            paths[0].parent,
            np.concatenate([shard.keys[keep] for shard, keep in parts]),
            np.concatenate([shard.features[keep] for shard, keep in parts]),
            cost,
            min(shard.created_ns for shard, _ in parts),
        ).path
    for path in paths:
        if path != written:
            path.unlink(missing_ok=True)
    return written


def _tidy(folder: Path) -> None:
    """Remove what killed writers left, indexes of no shard, and the folder if nothing else is in it."""
    if not indexes.shards_in(folder):
        indexes.drop(folder)
    for left in folder.glob(".*.tmp"):
        remove_if_stale(left)
    if not any(path.name != "recipe.json" for path in folder.iterdir()):
        (folder / "recipe.json").unlink(missing_ok=True)
        folder.rmdir()


# --- Who uses a cache --------------------------------------------------------------------------------------------


def register(root: Path) -> None:
    """Note in the cache that the repository in the current folder uses it."""
    path = _user_path(root)
    if not path.exists():
        write_json(path, _user())


def other_users(root: Path) -> dict[Path, str]:
    """Return the notes of other repositories that use the cache: file -> host and folder."""
    others = (path for path in sorted((root / "users").glob("*.json")) if path != _user_path(root))
    return {path: _describe(path) for path in others}


def _user() -> dict[str, str]:
    return {"host": platform.node(), "path": str(Path.cwd())}


def _user_path(root: Path) -> Path:
    return root / "users" / f"{stamps.sha256_json(_user())}.json"


def _describe(path: Path) -> str:
    try:
        user = json.loads(stamps.read_bytes(path))
        return f"{user['path']} on {user['host']}"
    except (ValueError, KeyError, TypeError, StateError):
        return "an unreadable note"
