"""Compare a matrix with the cache: its rows, those of augmented views, and what they cost."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import stamps
from pipeline.core.mismatches import Mismatch
from pipeline.core.params import Params
from pipeline.data.manifest import Manifest
from pipeline.embeddings import matrix
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.hdf5 import Floats
from pipeline.embeddings.matrix import Embeddings
from pipeline.embeddings.shards import Keys, keys_of, read_shard

ROUNDED = 4
"""Tolerance in units of the storage type's spacing, for rows of one recipe from two runtimes or machines."""
SUMMED = 1e-6
"""Relative tolerance of costs that were added in another order."""


def check(params: Params, table: Manifest, backbone: str, embedded: Embeddings) -> Iterator[Mismatch]:
    """Compare a matrix whose rows are the manifest's with the rows that the cache still holds."""
    path = matrix.matrix_path(backbone).as_posix()
    found = list(_views(params, table, path, embedded))
    yield from found
    parts = _parts(params, embedded)
    yield from _rows(path, *parts[0], embedded.features, "features")
    if embedded.augmented and not found:
        yield from _rows(path, *parts[1], embedded.augmented.features, "augmented/features")


def costs(params: Params, backbone: str) -> Iterator[Mismatch]:
    """Compare a matrix's cost with that of the cached rows, if the cache holds these rows and no others.

    A difference proves nothing: the matrix may come from another machine, and its rows be computed here again.
    """
    (cache, keys), *further = parts = _parts(params, matrix.read(backbone))
    if not all(_holds_only(cache, keys) for cache, keys in parts):
        return
    total = cache.cost(keys)
    for views, view_keys in further:
        total += views.cost(view_keys)
    expected, found = asdict(total), asdict(matrix.read_cost(backbone))
    for name in sorted(expected):
        if not _close(expected[name], found[name]):
            where = matrix.cost_path(backbone).as_posix()
            yield Mismatch(where, f"{expected[name]}, as the cached rows took", str(found[name]), name)


def _parts(params: Params, embedded: Embeddings) -> list[tuple[EmbeddingCache, Keys]]:
    """Return cache and keys of the images' rows, and of their augmented views if there are any."""
    parts = [(embedded.recipe, keys_of(bytes(sha).hex() for sha in embedded.sha256))]
    if embedded.augmented is not None:
        parts.append((embedded.augmented.recipe, _view_keys(embedded, max(params.embed.copies, 1))))
    return [(EmbeddingCache(params.embed.cache, recipe), keys) for recipe, keys in parts]


def _rows(path: str, cache: EmbeddingCache, keys: Keys, features: Floats, part: str) -> Iterator[Mismatch]:
    """Yield how many rows differ from those of the cache."""
    absent = np.isin(keys, keys[cache.missing(keys)])
    here = np.flatnonzero(~absent)
    different = 0
    for positions, stored in cache.blocks(keys[here]):
        rows = features[here[positions]]
        if rows.tobytes() != stored.tobytes():
            different += int((~alike(rows, stored)).sum())
    if different:
        yield Mismatch(path, f"the rows of {cache.folder}", f"{different} others", part)


def alike(one: Floats, other: Floats) -> npt.NDArray[np.bool_]:
    """Return which of two times n rows (n, D) are equal, up to what runtimes and machines differ in: (n,) of bool."""
    wide = one.astype(np.float64), other.astype(np.float64)
    length = np.maximum(np.linalg.norm(wide[0], axis=1), np.linalg.norm(wide[1], axis=1))
    tolerance = max(ROUNDED * float(np.finfo(one.dtype).eps), 1e-4)
    return np.asarray(np.linalg.norm(wide[0] - wide[1], axis=1) <= tolerance * length)


def _views(params: Params, table: Manifest, path: str, embedded: Embeddings) -> Iterator[Mismatch]:
    """Compare the augmented views and their recipe with manifest and params.yaml."""
    further = embedded.augmented
    if further is None:
        return
    asked = {**embedded.recipe, "augment": json.loads(stamps.canonical_json(params.embed.augment.model_dump()))}
    made: dict[str, Any] = {**further.recipe, "augment": dict(further.recipe["augment"])}
    made["augment"].pop("code_version", None)  # which `--recompute` compares with the code
    if made != asked:
        yield Mismatch(path, f"{asked}, as in params.yaml", str(made), "augmented: recipe")
    split_of = dict(zip(table.image_id, table.split, strict=True))
    train = [row for row, name in enumerate(embedded.image_id) if split_of.get(name) == "train"]
    expected = np.repeat(train, params.embed.copies)
    if not np.array_equal(expected, further.row) or len(further.features) != len(further.row):
        views = f"{params.embed.copies} views of each of {len(train)} training images, in their order"
        yield Mismatch(path, views, f"{len(further.features)} rows of others", "augmented/row")


def _view_keys(embedded: Embeddings, copies: int) -> Keys:
    """Return the keys of augmented views: those of one image lie together, numbered from 1."""
    row = embedded.augmented.row.tolist() if embedded.augmented else []
    sha256 = [bytes(embedded.sha256[one]).hex() for one in row]
    return keys_of(sha256, (place % copies + 1 for place in range(len(row))))


def _holds_only(cache: EmbeddingCache, keys: Keys) -> bool:
    """Return whether a cache holds these rows and no others.

    With others, a row's share of its shard's cost changes when `headswap cache` merges shards.
    """
    if len(cache.missing(keys)):
        return False
    return all(np.isin(read_shard(path).keys, keys).all() for path in cache.folder.glob("*.h5"))


def _close(one: float | None, other: float | None) -> bool:
    return one is other if one is None or other is None else bool(np.isclose(one, other, rtol=SUMMED, atol=0))
