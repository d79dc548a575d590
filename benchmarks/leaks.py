"""Near-duplicates: how many changed copies of the demo's images are found, and how many false alarms that takes."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.figures import Figure, at_least, at_most
from pipeline import params, splits, stamps
from pipeline.commands.demo import package_data
from pipeline.embeddings.cache import EmbeddingCache, keys_of
from pipeline.evaluation import twins
from pipeline.evaluation.twins import Floats, Twins
from pipeline.nn import backbones, embedding, runtime
from pipeline.nn.embedding import Item
from pipeline.params import Params
from pipeline.sources import records_of

BACKBONE, COPIED, NEIGHBOURS = "efficientnet_lite0", 100, 20
TRAIN, VAL, TEST = range(3)


def _scaled(share: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.resize((round(image.width * share), round(image.height * share)))


def _cropped(share: float) -> Callable[[Image.Image], Image.Image]:
    """Cut a share of the side off every border."""
    return lambda image: image.crop((
        round(image.width * share), round(image.height * share),
        round(image.width * (1 - share)), round(image.height * (1 - share)),
    ))  # fmt: skip


# name -> suffix, change, JPEG quality, and whether 90% of them are to be found
CHANGES: Mapping[str, tuple[str, Callable[[Image.Image], Image.Image], int, bool]] = {
    "scaled to 0.8": (".png", _scaled(0.8), 0, True),
    "scaled to 0.5": (".png", _scaled(0.5), 0, True),
    "brightened by a tenth": (".png", lambda image: image.point(lambda value: min(255, value * 1.1)), 0, True),
    "mirrored": (".png", lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 0, False),
    "JPEG 80": (".jpg", lambda image: image, 80, True),
    "JPEG 60": (".jpg", lambda image: image, 60, False),
    "without 1% of each border": (".png", _cropped(0.01), 0, False),
    "without 2.5% of each border": (".png", _cropped(0.025), 0, False),
}


def measure() -> Iterator[Figure]:
    """Embed the demo's images and changed copies of 100 of them, and look for the copies' twins."""
    settings, images = params.load(), sorted((package_data() / "images").glob("*.png"))
    drawn = np.sort(np.random.default_rng(0).choice(len(images), COPIED, replace=False))
    with tempfile.TemporaryDirectory() as name:
        copies = [path for kind in CHANGES for path in _copies(Path(name), kind, [images[at] for at in drawn])]
        X = _embedded([*images, *copies], settings, Path(name))
    own, least = X[: len(images)], settings.data.near_duplicate
    for (kind, (*_, expected)), changed in zip(CHANGES.items(), np.split(X[len(images) :], len(CHANGES)), strict=True):
        both, split = np.concatenate([own, changed]), np.repeat([TRAIN, TEST], [len(own), COPIED])
        found = twins.find(both, split != TRAIN, split, np.arange(len(both)), 0)
        share = 100 * float((found.similarity[len(own) :] >= least).mean())
        text = f"copies found as near-duplicates, {kind}"
        yield at_least(text, share, "%", 90) if expected else Figure(text, share, "%")
    yield from _own(own, settings, least)


def _copies(folder: Path, kind: str, images: list[Path]) -> Iterator[Path]:
    suffix, change, quality, _ = CHANGES[kind]
    for path in images:
        copy = folder / f"{kind} {path.stem}{suffix}"
        with Image.open(path) as image:
            change(image.convert("L")).save(copy, quality=quality or 75)  # which a PNG has none of
        yield copy


def _embedded(paths: list[Path], settings: Params, folder: Path) -> Floats:
    loaded = backbones.load(BACKBONE, settings.backbone(BACKBONE))
    cache = EmbeddingCache(folder / "cache", embedding.recipe_of(loaded.identity, settings.embed))
    items = [Item(path, stamps.sha256_file(path)) for path in paths]
    keys = keys_of(item.sha256 for item in items)
    missing = [items[at] for at in cache.missing(keys)]
    forward = runtime.lazy(loaded.network, settings.embed.runtime)
    embedding.run(missing, cache, forward, loaded.framing, settings.embed.batch_size, settings.embed.dtype)
    return cache.stored(keys)[:]


def _own(X: Floats, settings: Params, least: float) -> Iterator[Figure]:
    """Count the demo's own near-duplicates across its splits; sister cells stand next to each other in its list."""
    records = records_of("elpv", package_data())
    contents = [stamps.sha256_file(package_data() / record.path) for record in records]
    split = np.array(
        [("train", "val", "test").index(one) for one in splits.assign(records, contents, settings.split, 0)]
    )
    found: Twins = twins.find(X, split != TRAIN, split, np.arange(len(X)), 0)
    here = np.flatnonzero(found.similarity >= least)
    pairs = {(min(one, other), max(one, other)) for one, other in zip(here, found.row[here], strict=True)}
    far = sum(second - first > NEIGHBOURS for first, second in pairs)
    judged = int((split[here] == TEST).sum())
    yield Figure(f"pairs of cells in two splits that are as similar, {judged} test images among them", len(pairs), "")
    yield at_most(
        f"of them more than {NEIGHBOURS} apart in the list: false alarms, most likely", far, "", len(pairs) / 10
    )
