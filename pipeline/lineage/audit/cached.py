"""What a matrix holds, against the cache: its rows, those of further views, and what they cost."""

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
"""Of the storage type's spacing: how far rows of one recipe lie apart that another runtime or machine computed."""
SUMMED = 1e-6
"""Relative: how far costs lie apart that were added up in another order."""


def check(params: Params, table: Manifest, backbone: str, embedded: Embeddings) -> Iterator[Mismatch]:
    """Compare a matrix whose rows are the manifest's with the cache; rows that it no longer holds are passed over."""
    path = matrix.matrix_path(backbone).as_posix()
    found = list(_unlike_views(params, table, path, embedded))
    yield from found
    parts = _parts(params, embedded)
    yield from _unlike(path, *parts[0], embedded.features, "features")
    if embedded.augmented and not found:
        yield from _unlike(path, *parts[1], embedded.augmented.features, "augmented/features")


def costs(params: Params, backbone: str) -> Iterator[Mismatch]:
    """Compare a matrix's cost with what the cached rows took, where the cache holds these rows and no others.

    The cost comes with the matrix, and this cache may have computed the same rows itself: a difference proves nothing.
    """
    parts = _parts(params, matrix.read(backbone))
    if all(_holds_just(cache, keys) for cache, keys in parts):
        yield from _cost(backbone, parts)


def _parts(params: Params, embedded: Embeddings) -> list[tuple[EmbeddingCache, Keys]]:
    """Return cache and keys of the images' rows, and of further views where there are any."""
    parts = [(embedded.recipe, keys_of(bytes(sha).hex() for sha in embedded.sha256))]
    if embedded.augmented is not None:
        parts.append((embedded.augmented.recipe, _views(embedded, max(params.embed.copies, 1))))
    return [(EmbeddingCache(params.embed.cache, recipe), keys) for recipe, keys in parts]


def _unlike(path: str, cache: EmbeddingCache, keys: Keys, features: Floats, part: str) -> Iterator[Mismatch]:
    """Yield how many rows are not those of the cache."""
    absent = np.isin(keys, keys[cache.missing(keys)])
    here = np.flatnonzero(~absent)
    far = 0
    for positions, stored in cache.blocks(keys[here]):
        rows = features[here[positions]]
        if rows.tobytes() != stored.tobytes():
            far += int((~alike(rows, stored)).sum())
    if far:
        yield Mismatch(path, f"the rows of {cache.folder}", f"{far} others", part)


def alike(one: Floats, other: Floats) -> npt.NDArray[np.bool_]:
    """Return which rows (n, D) of two are the same up to what runtimes and machines differ in: (n,) of bool."""
    wide = one.astype(np.float64), other.astype(np.float64)
    length = np.maximum(np.linalg.norm(wide[0], axis=1), np.linalg.norm(wide[1], axis=1))
    tolerance = max(ROUNDED * float(np.finfo(one.dtype).eps), 1e-4)
    return np.asarray(np.linalg.norm(wide[0] - wide[1], axis=1) <= tolerance * length)


def _unlike_views(params: Params, table: Manifest, path: str, embedded: Embeddings) -> Iterator[Mismatch]:
    """Compare which further views there are, and their recipe, with manifest and params.yaml."""
    further = embedded.augmented
    if further is None:
        return
    asked = {**embedded.recipe, "augment": json.loads(stamps.canonical_json(params.embed.augment.model_dump()))}
    made: dict[str, Any] = {**further.recipe, "augment": dict(further.recipe["augment"])}
    made["augment"].pop("code_version", None)  # which `--recompute` holds against the code
    if made != asked:
        yield Mismatch(path, f"{asked}, as in params.yaml", str(made), "augmented: recipe")
    train = _train(table, embedded)
    expected = np.repeat(train, params.embed.copies)
    if not np.array_equal(expected, further.row) or len(further.features) != len(further.row):
        views = f"{params.embed.copies} views of each of {len(train)} training images, in their order"
        yield Mismatch(path, views, f"{len(further.features)} rows of others", "augmented/row")


def _train(table: Manifest, embedded: Embeddings) -> list[int]:
    split_of = dict(zip(table.image_id, table.split, strict=True))
    return [row for row, name in enumerate(embedded.image_id) if split_of.get(name) == "train"]


def _views(embedded: Embeddings, copies: int) -> Keys:
    """Return the keys of further views: those of one image lie together, numbered from 1."""
    row = embedded.augmented.row.tolist() if embedded.augmented else []
    sha256 = [bytes(embedded.sha256[one]).hex() for one in row]
    return keys_of(sha256, (place % copies + 1 for place in range(len(row))))


def _holds_just(cache: EmbeddingCache, keys: Keys) -> bool:
    """Return whether a cache holds these rows and no others.

    With others, a row's share of its shard's cost changes when `headswap cache` merges shards.
    """
    if len(cache.missing(keys)):
        return False
    return all(np.isin(read_shard(path).keys, keys).all() for path in cache.folder.glob("*.h5"))


def _cost(backbone: str, parts: list[tuple[EmbeddingCache, Keys]]) -> Iterator[Mismatch]:
    (cache, keys), *further = parts
    total = cache.cost(keys)
    for views, keys_of_views in further:
        total += views.cost(keys_of_views)
    expected, found = asdict(total), asdict(matrix.read_cost(backbone))
    path = matrix.cost_path(backbone).as_posix()
    for name in sorted(expected):
        if not _close(expected[name], found[name]):
            yield Mismatch(path, f"{expected[name]}, as the cached rows took", str(found[name]), name)


def _close(one: float | None, other: float | None) -> bool:
    return one is other if one is None or other is None else bool(np.isclose(one, other, rtol=SUMMED, atol=0))
