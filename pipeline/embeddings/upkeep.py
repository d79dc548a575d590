"""Upkeep of the cache as a whole: list its recipes, verify and merge its shards, remove rows.

A rewritten shard is complete before any old one is unlinked, and its rows stay bit for bit the same: a kill in between,
or a reader or writer at the same time, costs time and nothing else.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pipeline.core import stamps
from pipeline.core.atomic import remove_if_stale, still_there
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.embeddings import indexes
from pipeline.embeddings.matrix import comparable
from pipeline.embeddings.shards import SCHEMA_VERSION, read_shard, sha256_of, write_shard

SMALL_ROWS = 2048
"""Shards with fewer rows are merged into shards of about so many."""

Mask = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint8]
"""(n, 32)."""


@dataclass(frozen=True)
class RecipeFolder:
    """One recipe's folder of the cache."""

    path: Path
    recipe: Mapping[str, Any]
    shards: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """The size of its shards."""
        return sum(looks.st_size for _, looks in still_there(self.shards))

    @property
    def is_current(self) -> bool:
        """Whether its shards have the present layout."""
        return bool(self.recipe.get("schema_version") == SCHEMA_VERSION)


@dataclass
class Change:
    """What was removed, or would be: rows, shards and bytes."""

    rows: int = 0
    shards: int = 0
    bytes: int = 0

    def __iadd__(self, other: "Change") -> Self:
        """Add another change to this one."""
        self.rows += other.rows
        self.shards += other.shards
        self.bytes += other.bytes
        return self


def recipes(root: Path) -> list[RecipeFolder]:
    """Return the cache's recipes, sorted by folder; links are not followed.

    Raises:
        StateError: if a folder's recipe.json is missing, malformed, or of another recipe than the folder's name.

    """
    folders = [path for path in sorted(root.glob("*")) if len(path.name) == 64 and path.is_dir()]
    return [_recipe_folder(folder) for folder in folders if not folder.is_symlink()]


def _recipe_folder(folder: Path) -> RecipeFolder:
    path = folder / "recipe.json"
    try:
        recipe = json.loads(stamps.read_bytes(path))
    except (ValueError, StateError) as error:
        raise StateError(f"{path}: missing or malformed; delete the folder, and its rows are computed again") from error
    if stamps.sha256_json(recipe) != folder.name:
        raise StateError(f"{path}: is not the recipe its folder is named by; delete the folder")
    shards = tuple(path for path in sorted(folder.glob("*.h5")) if not path.is_symlink())
    return RecipeFolder(folder, recipe, shards)


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


def remove(folder: RecipeFolder, *, dry: bool) -> Change:
    """Remove a recipe with all its shards, of any layout."""
    rows = sum(len(read_shard(path).keys) for path in folder.shards) if folder.is_current else 0
    change = Change(rows, len(folder.shards), folder.bytes)
    if not dry:
        for path in folder.shards:
            path.unlink(missing_ok=True)
        indexes.drop(folder.path)
        _tidy(folder.path)
    return change


def prune(folder: RecipeFolder, images: Hashes, *, dry: bool) -> Change:
    """Keep the rows of these images only; a shard that holds others, too, is rewritten."""
    change = Change()
    for path in folder.shards:
        change += _keep(path, held(path, images), dry=dry)
    if not dry:
        indexes.drop(folder.path)  # they name shards that are gone
        _tidy(folder.path)
    return change


def forget(folder: RecipeFolder, images: Hashes, *, dry: bool) -> Change:
    """Remove the rows of these images, in every view; other rows of their shards are kept.

    Damaged shards, and all of an older layout, may hold such rows unseen: they are removed as a whole, and count no
    rows. Indexes are removed first, so that a kill leaves none that names a removed image, and again at the end, since
    a reader may have written one meanwhile.
    """
    if not folder.is_current:
        return remove(folder, dry=dry)
    change = Change()
    if not dry:
        indexes.drop(folder.path)
    for path in folder.shards:
        try:
            keep = ~held(path, images)
        except StateError:
            change += Change(0, 1, path.stat().st_size)
            if not dry:
                path.unlink()
            continue
        change += _keep(path, keep, dry=dry)
    if not dry:
        indexes.drop(folder.path)
        _tidy(folder.path)
    return change


def held(shard: Path, images: Hashes) -> Mask:
    """Return which rows of a shard belong to one of the images: (n,); StateError as `read_shard`."""
    return np.asarray(np.isin(comparable(sha256_of(read_shard(shard).keys)), comparable(images)))


def _keep(path: Path, keep: Mask, *, dry: bool) -> Change:
    """Rewrite a shard with some of its rows only, if any are to go."""
    if keep.all():
        return Change()
    change = Change(int((~keep).sum()), 1, int(path.stat().st_size * (1 - keep.mean())))
    if not dry:
        _rewrite([path], [keep])
    return change


def merge(folder: RecipeFolder) -> Change:
    """Merge small shards of similar age, without the rows that an older shard holds as well.

    A merged shard is as old as its oldest part. It holds only rows that no older shard has, so of equal keys the same
    row stays the oldest.
    """
    change = Change()
    batches: list[dict[Path, Mask]] = [{}]
    for path, first in _first_holders(folder.shards):
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
        indexes.drop(folder.path)
    return change


def _first_holders(shards: Sequence[Path]) -> list[tuple[Path, Mask]]:
    """Return the shards, oldest first, each with a mask of the rows that no older shard holds."""
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
    """Replace shards of one recipe by a single one with the rows to keep, or by none; return its path."""
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
    """Remove leftovers of killed writers, indexes without shards, and the folder if it is empty then."""
    if not indexes.shards_in(folder):
        indexes.drop(folder)
    for left in folder.glob(".*.tmp"):
        remove_if_stale(left)
    if not any(path.name != "recipe.json" for path in folder.iterdir()):
        (folder / "recipe.json").unlink(missing_ok=True)
        folder.rmdir()
