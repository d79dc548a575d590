"""From a manifest to a backbone's files: look its rows up in the cache, compute the missing ones, write the matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from pipeline.cluster import joined
from pipeline.core import stamps
from pipeline.core.atomic import write_json
from pipeline.core.errors import InputError, first_five
from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.data.manifest import Manifest
from pipeline.data.splits import methods
from pipeline.embeddings import matrix, skipped, users
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.matrix import RowBlocks
from pipeline.embeddings.shards import Keys, Recipe, keys_of, sha256_of
from pipeline.networks import frozen_pass, runtime, units, workers
from pipeline.networks.backbones import Loaded
from pipeline.networks.frozen_pass import Item
from pipeline.networks.workers import Job


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


@dataclass(frozen=True)
class Embedded:
    """What the cache holds after a pass."""

    images: Wanted
    """Every image that can be decoded, as it is."""
    further: Wanted
    """Further views of training images; those of one image lie together."""
    view_of: Sequence[int]
    """For each further view, the position of its image in `images`."""
    undecodable: Mapping[str, str]
    """sha256 -> reason, of the images left out."""
    computed: int
    """Rows that the cache did not have."""

    def __str__(self) -> str:
        views = f" and {len(self.further.row)} further views" if self.further.row else ""
        cached = len(self.images.row) + len(self.further.row) - self.computed
        left_out = len(self.images.table) - len(self.images.row)
        return (
            f"{len(self.images.row)} rows{views}: {self.computed} computed, {cached} from the cache; "
            f"{left_out} images skipped"
        )


def embed(params: Params, backbone: str, loaded: Loaded, table: Manifest) -> Embedded:
    """Bring every row that the manifest and `embed` ask for into the cache.

    Raises:
        InputError: if an image cannot be decoded and `embed.on_bad_image` is fail, or too few images are left.
        StateError: if a file has changed since `prepare`, or the engine's workers cannot do it.

    """
    settings = params.embed
    frozen = _FrozenPass(params, backbone, loaded)
    images = Wanted(EmbeddingCache(settings.cache, frozen.recipe), table, range(len(table)))
    missing = images.missing()
    users.register(settings.cache)
    undecodable = frozen.run(missing, images.cache)
    _require_usable(table, undecodable, settings.on_bad_image)

    kept = [row for row in range(len(table)) if table.sha256[row] not in undecodable]
    methods.require_left(table, kept, "the others of its images cannot be decoded")
    train = [position for position, row in enumerate(kept) if table.split[row] == "train"]
    view_of = np.repeat(train, settings.copies).tolist()
    further = Wanted(
        EmbeddingCache(settings.cache, frozen_pass.augmented(frozen.recipe, settings)),
        table,
        [kept[position] for position in view_of],
        list(range(1, settings.copies + 1)) * len(train),
    )
    missing_views = further.missing()
    frozen.run(missing_views, further.cache)
    computed = len(missing) - len(undecodable) + len(missing_views)
    return Embedded(Wanted(images.cache, table, kept), further, view_of, undecodable, computed)


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


def forecast(params: Params, loaded: Loaded, table: Manifest) -> str:
    """Say what `embed` would compute, and how long it would take where the cache has timed the like."""
    settings = params.embed
    recipe = frozen_pass.recipe_of(loaded.identity, settings)
    images = Wanted(EmbeddingCache(settings.cache, recipe), table, range(len(table)))
    missing, known, engine = images.missing(), images.cache.cost(images.keys), settings.engine
    views = settings.copies * sum(split == "train" for split in table.split)
    further = f" and at most {views} further views" if views else ""
    where = f" on the workers of {engine.backend} at {engine.address}" if engine.address else ""
    took = ""
    if known.images:
        seconds = known.seconds / known.images * len(missing)
        took = f", about {seconds:.0f} s{' of one worker' if where else ''} at the cached rows' pace"
    asked = f"{len(missing)} of {len(table)} images{further}"
    return f"{asked} would go through the CNN{where}{took}; nothing was computed"


class _FrozenPass:
    """How images go through the network: in this process, or on the workers of an engine."""

    def __init__(self, params: Params, backbone: str, loaded: Loaded) -> None:
        self.params, self.backbone, self.loaded = params, backbone, loaded
        self.recipe = frozen_pass.recipe_of(loaded.identity, params.embed)
        self.forward = runtime.lazy(loaded.network, params.embed.runtime)

    def run(self, items: Sequence[Item], cache: EmbeddingCache) -> Mapping[str, str]:
        """Embed the items and add their rows to the cache; return sha256 -> reason, of the undecodable images."""
        if not items:
            return {}
        if self.params.embed.engine.backend == "local":
            return self._here(items, cache)
        job = self._job(cache.recipe)
        with workers.agreed(job, items[0]) as identity, joined(job.settings.engine, identity) as cluster:
            return units.run(cluster, job, cache, items)

    def _here(self, items: Sequence[Item], cache: EmbeddingCache) -> Mapping[str, str]:
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
        entry = self.params.backbone(self.backbone)
        return Job(Path.cwd(), self.backbone, entry, settings, self.params.data, recipe)


def _require_usable(table: Manifest, undecodable: Mapping[str, str], on_bad_image: str) -> None:
    bad = [f"{table.shown(row)}: {undecodable[one]}" for row, one in enumerate(table.sha256) if one in undecodable]
    if bad and on_bad_image == "fail":
        listed = first_five(bad, "bad images")
        raise InputError(*listed, "remove or replace them, or set embed.on_bad_image: skip in params.yaml")


def _reasons(embedded: Embedded) -> dict[str, str]:
    """Return image_id -> why it was skipped."""
    table, reasons = embedded.images.table, embedded.undecodable
    return {
        name: reasons[sha256] for name, sha256 in zip(table.image_id, table.sha256, strict=True) if sha256 in reasons
    }
