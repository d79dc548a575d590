"""From cached rows to the files of a backbone: matrix, stamp, skipped images, and what the rows cost."""

from dataclasses import asdict

import numpy as np

from pipeline.core import stamps
from pipeline.core.atomic import write_json
from pipeline.data import manifest
from pipeline.embeddings import matrix, skipped
from pipeline.embeddings.shards import sha256_of
from pipeline.networks.backbones import Loaded
from pipeline.networks.embedding import Embedded


def materialise(backbone: str, embedded: Embedded, loaded: Loaded) -> None:
    """Write all that `embed` leaves for a backbone; everything but the cost is a function of images and recipe."""
    images, further, path = embedded.images, embedded.further, matrix.matrix_path(backbone)
    manifest_sha256, recipe = stamps.sha256_file(manifest.MANIFEST), images.cache.recipe
    image_id = [images.table.image_id[row] for row in images.row]
    augmented = (further.rows(), np.array(embedded.view_of)) if further.row else None
    matrix.write(path, sha256_of(images.keys), image_id, manifest_sha256, images.rows(), augmented)
    stamp = stamps.Stamp(
        f"embed@{backbone}",
        outputs=stamps.hashes([path]),
        inputs={manifest.MANIFEST.as_posix(): manifest_sha256, loaded.weights: str(recipe["weights_sha256"])},
        facts={"recipe": recipe, "weights_pinned": loaded.pinned}
        | ({"augmented_recipe": further.cache.recipe} if further.row else {}),
    )
    stamps.write(matrix.stamp_path(backbone), stamp)
    skipped.write(backbone, _reasons(embedded), manifest_sha256, recipe)
    cost = images.cache.cost(images.keys) + further.cache.cost(further.keys)
    write_json(matrix.cost_path(backbone), asdict(cost))


def _reasons(embedded: Embedded) -> dict[str, str]:
    """Return image_id -> why it was skipped."""
    table, reasons = embedded.images.table, embedded.undecodable
    return {
        name: reasons[sha256] for name, sha256 in zip(table.image_id, table.sha256, strict=True) if sha256 in reasons
    }
