"""embed: manifest -> data/embeddings/<backbone>.*, running the CNN over images the cache does not know."""

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from pipeline.cluster import joined
from pipeline.core import options, processes, stamps
from pipeline.core.atomic import write_json
from pipeline.core.errors import InputError, first_five
from pipeline.core.params import Params
from pipeline.core.sections import BackboneEntry, Embed
from pipeline.data import manifest
from pipeline.data.manifest import Manifest
from pipeline.data.splits import methods
from pipeline.embeddings import matrix, skipped, upkeep
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.matrix import Rows
from pipeline.embeddings.shards import Keys, Recipe, keys_of, sha256_of
from pipeline.networks import backbones, frozen_pass, runtime, units, workers
from pipeline.networks.backbones import Loaded
from pipeline.networks.frozen_pass import Item
from pipeline.networks.workers import Job

HELP = "stage: push images the cache does not know through a frozen CNN"


def arguments(parser: ArgumentParser) -> None:
    """Ask for a backbone; offer to compute nothing."""
    options.entries(parser, "backbone")
    dry_run = "say how many images that would be and how long it would take; compute nothing"
    parser.add_argument("--dry-run", action="store_true", help=dry_run)


def main(params: Params, backbone: str, *, dry_run: bool = False) -> str:
    """Look up, compute what is missing, append, materialise; return the summary line.

    Raises:
        InputError: if an image cannot be used and `embed.on_bad_image` is fail.
        StateError: if another `embed` is at work in this repository, the manifest is of another data folder, or the
            engine's workers cannot do it.

    """
    entry, table = params.backbone(backbone), manifest.read()
    table.require_folder(params.data.folder)
    loaded = backbones.load(backbone, entry)
    recipe = frozen_pass.recipe_of(loaded.identity, params.embed)
    if dry_run:
        images = _Part(EmbeddingCache(params.embed.cache, recipe), table, range(len(table)))
        return _forecast(images, table, params.embed)
    with processes.alone(processes.EMBED_LOCK, "another `headswap embed`"):
        return _embed(params, backbone, _Pass(params, backbone, entry, loaded), recipe, table)


class _Pass:
    """How images that the cache does not know go through the network: here, or on the workers of an engine."""

    def __init__(self, params: Params, backbone: str, entry: BackboneEntry, loaded: Loaded) -> None:
        self.params, self.backbone, self.entry, self.loaded = params, backbone, entry, loaded
        self.forward = runtime.lazy(loaded.network, params.embed.runtime)

    def run(self, items: Sequence[Item], cache: EmbeddingCache) -> dict[str, str]:
        """Embed the items and add their rows to the cache; return sha256 -> reason, of the undecodable images."""
        if not items:
            return {}
        if self.params.embed.engine.backend == "local":
            return self._here(items, cache)
        job = self._job(cache.recipe)
        with workers.agreed(job, items[0]) as identity, joined(job.settings.engine, identity) as cluster:
            return units.run(cluster, job, cache, items)

    def _here(self, items: Sequence[Item], cache: EmbeddingCache) -> dict[str, str]:
        settings = self.params.embed
        undecodable = frozen_pass.run(
            items,
            cache,
            self.forward,
            framing=self.loaded.framing_for(settings),
            batch_size=settings.batch_size,
            dtype=settings.dtype,
            load=partial(frozen_pass.load, augment=settings.augment),
        )
        cache.refresh()  # another writer's rows may be older than ours, and the oldest is everyone's
        return undecodable

    def _job(self, recipe: Recipe) -> Job:
        settings, loaded = self.params.embed, self.loaded
        name = runtime.decided(loaded.network, settings.runtime, settings.batch_size, loaded.framing.size)
        settings = settings.model_copy(update={"runtime": name})
        return Job(Path.cwd(), self.backbone, self.entry, settings, self.params.data, recipe)


def _embed(params: Params, backbone: str, frozen: _Pass, recipe: Recipe, table: Manifest) -> str:
    settings = params.embed
    images = _Part(EmbeddingCache(settings.cache, recipe), table, range(len(table)))
    missing = images.missing()
    upkeep.register(settings.cache)
    undecodable = frozen.run(missing, images.cache)
    _report_bad_images(table, undecodable, settings.on_bad_image)
    kept = [row for row in range(len(table)) if table.sha256[row] not in undecodable]
    methods.require_left(table, kept, "the others of its images cannot be decoded")

    images = _Part(images.cache, table, kept)
    train = [row for row, at in enumerate(kept) if table.split[at] == "train"]
    copied = np.repeat(train, settings.copies)  # the further views of one image lie together
    further = _Part(
        EmbeddingCache(settings.cache, frozen_pass.augmented(recipe, settings)),
        table,
        [kept[row] for row in copied],
        list(range(1, settings.copies + 1)) * len(train),
    )
    missing_further = further.missing()
    frozen.run(missing_further, further.cache)
    _materialise(backbone, frozen.loaded, table, undecodable, images, (further, copied))
    computed = len(missing) - len(undecodable) + len(missing_further)
    rows = f"{len(kept)} rows" + (f" and {len(further.row)} further views" if further.row else "")
    return f"{rows}: {computed} computed, the rest from the cache; {len(table) - len(kept)} images skipped"


@dataclass(frozen=True)
class _Part:
    """Rows of the matrix, by the images and views they belong to, and the cache that holds them."""

    cache: EmbeddingCache
    table: Manifest
    row: Sequence[int]
    """The manifest's row of every image."""
    views: Sequence[int] | None = None
    """Their numbers; left out, the images are as they are."""

    @cached_property
    def keys(self) -> Keys:
        return keys_of((self.table.sha256[row] for row in self.row), self.views)

    def missing(self) -> list[Item]:
        return [self._item(position) for position in self.cache.missing(self.keys).tolist()]

    def _item(self, position: int) -> Item:
        row, view = self.row[position], self.views[position] if self.views else 0
        return Item(Path(self.table.path[row]), self.table.sha256[row], view, self.table.image_id[row])

    def rows(self) -> Rows:
        (width,), dtype = self.cache.row_shape(), self.cache.recipe["dtype"]
        return Rows((len(self.row), width), dtype, self.cache.recipe, self.cache.blocks(self.keys))


def _forecast(images: _Part, table: Manifest, settings: Embed) -> str:
    """Say what a run would do, and how long it would take where the cache has seen the like."""
    missing = images.missing()
    known = images.cache.cost(images.keys)
    seconds = known.seconds / known.images * len(missing) if known.images else 0
    engine = settings.engine
    where = f" on the workers of {engine.backend} at {engine.address}" if engine.address else ""
    took = (
        f", about {seconds:.0f} s{' of one worker' if where else ''} at the cached rows' pace" if known.images else ""
    )
    views = settings.copies * sum(split == "train" for split in table.split)
    further = f" and at most {views} further views" if views else ""
    return f"{len(missing)} of {len(table)} images{further} would go through the CNN{where}{took}; nothing was computed"


def _report_bad_images(table: Manifest, undecodable: dict[str, str], on_bad_image: str) -> None:
    bad = [f"{table.shown(row)}: {undecodable[one]}" for row, one in enumerate(table.sha256) if one in undecodable]
    if bad and on_bad_image == "fail":
        listed = first_five(bad, "bad images")
        raise InputError(*listed, "remove or replace them, or set embed.on_bad_image: skip in params.yaml")


def _materialise(
    backbone: str,
    loaded: Loaded,
    table: Manifest,
    undecodable: Mapping[str, str],
    images: _Part,
    further: tuple[_Part, matrix.Ints],
) -> None:
    """Write matrix, stamp, list of skipped images, and what the rows cost; all but that depend on images and recipe."""
    path, manifest_sha256 = matrix.matrix_path(backbone), stamps.sha256_file(manifest.MANIFEST)
    copies, row = further
    reasons = {
        name: undecodable[sha256]
        for name, sha256 in zip(table.image_id, table.sha256, strict=True)
        if sha256 in undecodable
    }
    image_id = [name for name in table.image_id if name not in reasons]
    augmented = (copies.rows(), row) if copies.row else None
    matrix.write(path, sha256_of(images.keys), image_id, manifest_sha256, images.rows(), augmented)
    recipe = images.cache.recipe
    stamp = stamps.Stamp(
        f"embed@{backbone}",
        outputs=stamps.hashes([path]),
        inputs={manifest.MANIFEST.as_posix(): manifest_sha256, loaded.weights: str(recipe["weights_sha256"])},
        facts={"recipe": recipe, "weights_pinned": loaded.pinned}
        | ({"augmented_recipe": copies.cache.recipe} if copies.row else {}),
    )
    stamps.write(matrix.stamp_path(backbone), stamp)
    skipped.write(backbone, reasons, manifest_sha256, recipe)
    cost = images.cache.cost(images.keys) + copies.cache.cost(copies.keys)
    write_json(matrix.cost_path(backbone), asdict(cost))
