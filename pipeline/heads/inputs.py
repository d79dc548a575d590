"""The input of heads: the embeddings, with labels and splits from the manifest."""

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
from pipeline.heads.rows import FeatureFile, Rows
from pipeline.heads.types import Ints

LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch")
"""The libraries that decide a head's numbers."""


@dataclass(frozen=True)
class HeadInputs:
    """All embedded images with their labels and splits."""

    table: Manifest
    row: Ints
    """(N,) the row in the manifest of every image."""
    images: Rows
    """N rows; in their source, M further views lie below them."""
    views: Ints
    """(M,) the image that each further view shows."""
    train: Ints
    val: Ints
    test: Ints

    def training_rows(self, images: Ints) -> Rows:
        """Return some training images, then their further views."""
        return of_images(self.with_views(), images)

    def with_views(self) -> Rows:
        """Return all images, then all further views: N + M rows."""
        image = np.concatenate([self.images.image, self.views])
        return Rows(self.images.source, np.arange(len(image)), self.images.y[image], image, self.images.group[image])


def of_images(rows: Rows, images: Ints) -> Rows:
    """Return those rows that show one of some images."""
    return rows[np.flatnonzero(np.isin(rows.image, images))]


def read(params: Params, backbone: str, *, streams: bool) -> HeadInputs:
    """Read the embeddings of a backbone and the manifest.

    With `streams`, features stay in the file, for heads that read it block by block.

    Raises:
        InputError: if a class has no embedded image in some split.
        StateError: if the embeddings were made with other settings or for another manifest.

    """
    table, embedded = manifest.read(), matrix.read(backbone)
    matrix.require_recipe(embedded, backbone, params)
    row = aligned(table, embedded)
    methods.require_left(table, row, "the others of its images have no embedding")
    split_of = np.array([table.split[at] for at in row])
    train, val, test = (np.flatnonzero(split_of == split) for split in manifest.SPLITS)
    images = Rows(
        source=_source(embedded, backbone, streams=streams),
        at=np.arange(len(row)),
        y=np.array([table.label[at] for at in row]),
        image=np.arange(len(row)),
        group=np.array([table.group[at] or "" for at in row]),
    )
    views = embedded.augmented.row if embedded.augmented else np.empty(0, np.int64)
    return HeadInputs(table, np.array(row), images, views, train, val, test)


def made_from(backbone: str) -> dict[str, str]:
    """Return path -> sha256 of the manifest and the embeddings, from their stamps."""
    return {**stamps.read(manifest.STAMP).outputs, **stamps.read(matrix.stamp_path(backbone)).outputs}


@contextmanager
def cluster(params: Params, backbone: str) -> Iterator[Cluster]:
    """Yield the cluster of `embed.engine`, on which heads are searched; it is joined with the first tasks."""
    identity = partial(_identity, matrix.matrix_path(backbone).absolute())
    with when_needed(params.embed.engine, identity) as joined:
        yield joined


def _identity(path: Path) -> dict[str, str]:
    """Return what must agree between processes: libraries, and the size of the matrix; its bytes are hashed later."""
    size = f"{path.stat().st_size:,} bytes" if path.is_file() else "no such file"
    return {**agreement.software(LIBRARIES), str(path): size}


def _source(embedded: Embeddings, backbone: str, *, streams: bool) -> FeatureFile:
    """Return the features of all images, then those of all further views."""
    path, parts = matrix.matrix_path(backbone), {"features": embedded.features}
    if embedded.augmented is not None and len(embedded.augmented.row):  # an empty array cannot be mapped
        parts["augmented/features"] = embedded.augmented.features
    sha256 = stamps.read(matrix.stamp_path(backbone)).outputs[path.as_posix()]
    return FeatureFile(path.absolute(), sha256, tuple(parts), streams, tuple(parts.values()))


def aligned(table: Manifest, embedded: Embeddings) -> list[int]:
    """Return the manifest's row for every row of the matrix; StateError if they do not belong together."""
    if embedded.manifest_sha256 != stamps.sha256_file(manifest.MANIFEST):
        raise StateError("the embeddings were made for another manifest; run `dvc repro`")
    row_of = table.row_of()
    return [row_of[image_id] for image_id in embedded.image_id]
