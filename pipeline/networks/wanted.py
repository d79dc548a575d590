"""The rows that a matrix wants, by images and views, and the cache that has them or does not."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.data.manifest import Manifest
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.matrix import RowBlocks
from pipeline.embeddings.shards import Keys, keys_of
from pipeline.networks.frozen_pass import Item


@dataclass(frozen=True)
class Wanted:
    """Rows in the matrix's order: n images of a manifest, each in one view."""

    cache: EmbeddingCache
    table: Manifest
    row: Sequence[int]
    """(n,) each image's row in the manifest."""
    view: Sequence[int] | None = None
    """(n,) the number of its view; left out, every image is as it is."""

    @cached_property
    def keys(self) -> Keys:
        """Return the (n,) keys under which the cache knows them."""
        return keys_of((self.table.sha256[row] for row in self.row), self.view)

    def missing(self) -> list[Item]:
        """Return what the cache does not have, each content and view once."""
        return [self._item(position) for position in self.cache.missing(self.keys).tolist()]

    def rows(self) -> RowBlocks:
        """Return the (n, D) rows as the matrix takes them; the cache must have them all."""
        (width,), dtype = self.cache.row_shape(), self.cache.recipe["dtype"]
        return RowBlocks((len(self.row), width), dtype, self.cache.recipe, self.cache.blocks(self.keys))

    def _item(self, position: int) -> Item:
        row, view = self.row[position], self.view[position] if self.view else 0
        return Item(Path(self.table.path[row]), self.table.sha256[row], view, self.table.image_id[row])
