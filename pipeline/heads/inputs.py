"""Manifest and embeddings side by side: the rows that heads learn from and are judged by."""

from dataclasses import dataclass

import numpy as np

from pipeline import manifest, stamps
from pipeline.embeddings import matrix
from pipeline.embeddings.matrix import Embeddings
from pipeline.embeddings.stored import Stored
from pipeline.errors import StateError
from pipeline.heads.types import Features, Ints, Rows, chosen_rows
from pipeline.manifest import Manifest
from pipeline.params import Params


@dataclass(frozen=True)
class Inputs:
    """All embedded images with their labels and splits."""

    table: Manifest
    row: Ints
    """(N,) the manifest's row of every image."""
    images: Rows
    """N rows; in their `X` all further views lie below them."""
    views: Ints
    """(M,) the image that each further view is of."""
    train: Ints
    val: Ints
    test: Ints

    def to_train_on(self, images: Ints) -> Rows:
        """Return some training images, and after them their further views."""
        views = np.flatnonzero(np.isin(self.views, images))
        rows, image = np.concatenate([images, len(self.row) + views]), np.concatenate([images, self.views[views]])
        return Rows(chosen_rows(self.images.X, rows), self.images.y[image], image, self.images.group[image])


def read(params: Params, backbone: str, *, streams: bool) -> Inputs:
    """Read both.

    Args:
        params: what the embeddings should have been made by.
        backbone: whose.
        streams: whether the features stay in the file, for heads that read it block by block.

    Raises:
        StateError: if the embeddings were made by other settings or for another manifest.

    """
    table, embedded = manifest.read(), matrix.read(backbone)
    matrix.require_recipe(embedded, backbone, params)
    row = aligned(table, embedded)
    splits = np.array([table.split[at] for at in row])
    train, val, test = (np.flatnonzero(splits == split) for split in manifest.SPLITS)
    images = Rows(
        X=_features(embedded, streams=streams),
        y=np.array([table.label[at] for at in row]),
        image=np.arange(len(row)),
        group=np.array([table.group[at] or "" for at in row]),
    )
    views = embedded.augmented.row if embedded.augmented else np.empty(0, np.int64)
    return Inputs(table, np.array(row), images, views, train, val, test)


def _features(embedded: Embeddings, *, streams: bool) -> Features:
    """Return the features of all images, then of all further views: unread if the head reads them block by block."""
    parts = [embedded.features, *([embedded.augmented.features] if embedded.augmented else [])]
    if streams:
        return Stored(parts, np.arange(sum(map(len, parts))))
    return np.concatenate([part.astype(np.float32) for part in parts])


def aligned(table: Manifest, embedded: Embeddings) -> list[int]:
    """Return the manifest row of every matrix row; StateError if the two do not belong together."""
    if embedded.manifest_sha256 != stamps.sha256_file(manifest.MANIFEST):
        raise StateError("the embeddings were made for another manifest; run `dvc repro`")
    row_of = table.row_of()
    return [row_of[image_id] for image_id in embedded.image_id]
