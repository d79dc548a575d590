"""Manifest and embeddings side by side: the rows that heads learn from and are judged by."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.cluster import Cluster, agreement, when_needed
from pipeline.core import stamps
from pipeline.core.errors import StateError
from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.data.manifest import Manifest
from pipeline.data.splits import methods
from pipeline.embeddings import matrix
from pipeline.embeddings.matrix import Embeddings
from pipeline.heads.rows import Matrix, Rows
from pipeline.heads.types import Ints

LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch")
"""What decides a head's numbers besides Headswap's own code."""


@dataclass(frozen=True)
class Inputs:
    """All embedded images with their labels and splits."""

    table: Manifest
    row: Ints
    """(N,) the manifest's row of every image."""
    images: Rows
    """N rows; in their source all further views lie below them."""
    views: Ints
    """(M,) the image that each further view is of."""
    train: Ints
    val: Ints
    test: Ints

    def to_train_on(self, images: Ints) -> Rows:
        """Return some training images, and after them their further views."""
        return of_images(self.with_views(), images)

    def with_views(self) -> Rows:
        """Return all images, and below them all further views: N + M rows."""
        image = np.concatenate([self.images.image, self.views])
        return Rows(self.images.source, np.arange(len(image)), self.images.y[image], image, self.images.group[image])


def of_images(rows: Rows, images: Ints) -> Rows:
    """Return the rows of some images, in the order in which they lie."""
    return rows[np.flatnonzero(np.isin(rows.image, images))]


def read(params: Params, backbone: str, *, streams: bool) -> Inputs:
    """Read both.

    Args:
        params: what the embeddings should have been made by.
        backbone: whose.
        streams: whether the features stay in the file, for heads that read it block by block.

    Raises:
        InputError: if a class has no embedded image in some split.
        StateError: if the embeddings were made by other settings or for another manifest.

    """
    table, embedded = manifest.read(), matrix.read(backbone)
    matrix.require_recipe(embedded, backbone, params)
    row = aligned(table, embedded)
    methods.require_left(table, row, "the others of its images have no embedding")
    dealt = np.array([table.split[at] for at in row])
    train, val, test = (np.flatnonzero(dealt == split) for split in manifest.SPLITS)
    images = Rows(
        source=_source(embedded, backbone, streams=streams),
        at=np.arange(len(row)),
        y=np.array([table.label[at] for at in row]),
        image=np.arange(len(row)),
        group=np.array([table.group[at] or "" for at in row]),
    )
    views = embedded.augmented.row if embedded.augmented else np.empty(0, np.int64)
    return Inputs(table, np.array(row), images, views, train, val, test)


def made_from(backbone: str) -> dict[str, str]:
    """Return path -> sha256 of manifest and embeddings, as their stages stamped them."""
    return {**stamps.read(manifest.STAMP).outputs, **stamps.read(matrix.stamp_path(backbone)).outputs}


@contextmanager
def cluster(params: Params, backbone: str) -> Iterator[Cluster]:
    """Yield where heads are searched, as `embed.engine` says; errors, with the first tasks, as `engines.joined`."""
    identity = partial(_identity, matrix.matrix_path(backbone).absolute())
    with when_needed(params.embed.engine, identity) as joined:
        yield joined


def _identity(path: Path) -> dict[str, str]:
    """Return what decides a head's numbers here, and whether its matrix is in sight; its bytes are hashed later."""
    size = f"{path.stat().st_size:,} bytes" if path.is_file() else "no such file"
    return {**agreement.software(LIBRARIES), str(path): size}


def _source(embedded: Embeddings, backbone: str, *, streams: bool) -> Matrix:
    """Return the features of all images, and below them those of all further views."""
    path, parts = matrix.matrix_path(backbone), {"features": embedded.features}
    if embedded.augmented is not None and len(embedded.augmented.row):  # what is empty cannot be mapped
        parts["augmented/features"] = embedded.augmented.features
    sha256 = stamps.read(matrix.stamp_path(backbone)).outputs[path.as_posix()]
    return Matrix(path.absolute(), sha256, tuple(parts), streams, tuple(parts.values()))


def aligned(table: Manifest, embedded: Embeddings) -> list[int]:
    """Return the manifest row of every matrix row; StateError if the two do not belong together."""
    if embedded.manifest_sha256 != stamps.sha256_file(manifest.MANIFEST):
        raise StateError("the embeddings were made for another manifest; run `dvc repro`")
    row_of = table.row_of()
    return [row_of[image_id] for image_id in embedded.image_id]
