"""embed: manifest -> data/embeddings/<backbone>.h5, running the CNN over images the cache does not know."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

from pipeline import embeddings, manifest, splits, stamps
from pipeline.atomic import write_json
from pipeline.embeddings import EmbeddingCache, Embeddings, keys_of
from pipeline.errors import InputError, first_five
from pipeline.images import Framing
from pipeline.manifest import Manifest
from pipeline.nn import backbones, embedding, runtime
from pipeline.nn.embedding import Item
from pipeline.params import Params


def main(params: Params, backbone: str) -> str:
    """Look up, compute what is missing, append, materialise; return the summary line."""
    entry, settings = params.backbone(backbone), params.embed
    table = manifest.read()
    loaded = backbones.load(backbone, entry)
    recipe = {
        **loaded.identity,
        "dtype": settings.dtype,
        "code_version": embedding.CODE_VERSION,
        "schema_version": embeddings.SCHEMA_VERSION,
    }
    cache = EmbeddingCache(settings.cache, recipe)
    missing = cache.missing(keys_of(table.sha256))
    skipped = embedding.run(
        [Item(Path(table.path[row]), table.sha256[row]) for row in missing],
        cache,
        partial(runtime.prepare, loaded.network, settings.runtime),
        Framing(entry.image_size, entry.crop),
        settings.batch_size,
        settings.dtype,
    )
    _report_bad_images(table, skipped, settings.on_bad_image)
    kept = [row for row in range(len(table)) if table.sha256[row] not in skipped]
    splits.require_every_class([table.label[row] for row in kept], [table.split[row] for row in kept])
    _materialise(backbone, table, kept, cache, skipped, loaded.weights)
    computed = len(missing) - len(skipped)
    return f"{len(kept)} rows: {computed} computed, the rest from the cache; {len(table) - len(kept)} images skipped"


def _report_bad_images(table: Manifest, skipped: dict[str, str], on_bad_image: str) -> None:
    bad = [
        f"{path}: {skipped[sha256]}" for path, sha256 in zip(table.path, table.sha256, strict=True) if sha256 in skipped
    ]
    if bad and on_bad_image == "fail":
        listed = first_five(bad, "bad images")
        raise InputError(*listed, "remove or replace them, or set embed.on_bad_image: skip in params.yaml")


def _materialise(
    backbone: str, table: Manifest, kept: list[int], cache: EmbeddingCache, skipped: dict[str, str], weights: str
) -> None:
    """Write the matrix, its stamp, and what its rows cost; the first two depend on nothing but images and recipe."""
    keys = keys_of(table.sha256[row] for row in kept)
    features, cost = cache.gather(keys)
    manifest_sha256 = stamps.sha256_file(manifest.MANIFEST)
    image_id = [table.image_id[row] for row in kept]
    path = embeddings.matrix_path(backbone)
    embeddings.write(path, Embeddings(features, keys, image_id, cache.recipe, manifest_sha256))
    reasons = {
        table.image_id[row]: skipped[table.sha256[row]] for row in range(len(table)) if table.sha256[row] in skipped
    }
    stamp = stamps.Stamp(
        f"embed@{backbone}",
        outputs=stamps.hashes([path]),
        inputs={manifest.MANIFEST.as_posix(): manifest_sha256, weights: str(cache.recipe["weights_sha256"])},
        facts={"recipe": cache.recipe, "skipped": reasons},
    )
    stamps.write(embeddings.stamp_path(backbone), stamp)
    write_json(embeddings.cost_path(backbone), asdict(cost))
