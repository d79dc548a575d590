"""All that still carries some images, for a person to read: files, models, reports, and objects in DVC's cache.

Scores and plots are sums over many images and carry none of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.core import locks, stamps
from pipeline.core.errors import StateError
from pipeline.core.params import Data, Params
from pipeline.data import manifest
from pipeline.data.images import thumbnails
from pipeline.data.manifest import MANIFEST, Manifest
from pipeline.evaluation import runs, surveys
from pipeline.lineage.audit import forgotten, objects
from pipeline.quality import files
from pipeline.verdict import schema

Carrier = tuple[str, str]
"""Where, and how it carries the images."""

OLDER = f"not known: made from an older {MANIFEST}, or altered"
_TABLES: tuple[tuple[str, str, Callable[[str], Sequence[str]]], ...] = (
    ("data/thumbnails.json", "a small picture of it", lambda _: thumbnails.read().image_id),
    ("survey/*.json", "its place on the map", lambda name: surveys.read(name).image_id),
    ("curves/*.json", "models trained on it, or decisions on it", lambda _: manifest.read().image_id),
)
"""Stamps of what stages make, how it carries an image, and which images it carries."""
_REPORTS = (files.FINDINGS, files.LIST, schema.VERDICT, schema.PAGE)


@dataclass(frozen=True)
class _Images:
    """What the manifest says of the images."""

    ids: frozenset[str]
    splits: frozenset[str]
    manifest_sha256: str | None
    """None without a manifest."""


def find(params: Params, table: Manifest | None, gone: Sequence[str]) -> Iterator[Carrier]:
    """Yield what carries the images, by sha256: raw files, then what was made of them, then DVC's objects."""
    where = ", in an archive" if params.data.is_archive else ""
    for path, _ in forgotten.raw_files(params.data, set(gone), {}):
        yield path, f"the image itself{where}: yours to delete"
    images = _images(table, set(gone))
    for image_id in sorted(images.ids) if params.data.remote else ():
        yield f"{params.data.remote}/{image_id}", "the image itself: yours to delete"
    if images.ids:
        yield str(MANIFEST), "its row"
    yield from _tables(images)
    yield from _models(images)
    if images.ids:
        yield from ((str(path), "made of it among others") for path in _REPORTS if path.exists())
    yield from _objects(params.data, gone)


def _images(table: Manifest | None, gone: set[str]) -> _Images:
    if table is None:
        return _Images(frozenset(), frozenset(), None)
    rows = [row for row, sha256 in enumerate(table.sha256) if sha256 in gone]
    ids, splits = (frozenset(column[row] for row in rows) for column in (table.image_id, table.split))
    return _Images(ids, splits, stamps.sha256_file(MANIFEST))


def _tables(images: _Images) -> Iterator[Carrier]:
    """Yield thumbnails, surveys and curves that were made of the images."""
    for pattern, how, image_ids in _TABLES:
        for stamp in sorted(Path().glob(pattern)):
            made = _made(images, stamp, partial(image_ids, stamp.stem))
            if made is None or made & images.ids:
                yield str(stamp.with_suffix(".parquet")), how if made else OLDER


def _models(images: _Images) -> Iterator[Carrier]:
    """Yield the models that learned from the images or were chosen by them, and predictions of them."""
    for stamp in sorted(Path("models").glob("*/*/run.json")):
        backbone, name = stamp.parts[1:3]
        if _failed(backbone, name):
            continue
        predicted = _made(images, stamp, lambda: runs.read(backbone, name).predictions.image_id)  # noqa: B023
        if predicted is None:
            yield str(stamp.parent), OLDER
        elif "train" in images.splits:
            yield str(stamp.parent), "a model trained on it"
        elif "val" in images.splits:
            yield str(stamp.parent), "a model chosen by what it decided on it"
        if predicted and predicted & images.ids:
            yield f"predictions/{backbone}/{name}.parquet", "a prediction of it"


def _failed(backbone: str, name: str) -> bool:
    """Return whether a run failed, so that it carries nothing."""
    try:
        return bool(runs.failed([(backbone, name)]))
    except StateError:
        return False


def _made(images: _Images, stamp: Path, image_ids: Callable[[], Sequence[str]]) -> set[str] | None:
    """Return the images in what was made from today's manifest; None for what was not, or cannot be read."""
    try:
        if stamps.read(stamp).inputs.get(MANIFEST.as_posix()) != images.manifest_sha256:
            return None
        return set(image_ids())
    except StateError:
        return None


def _objects(data: Data, gone: Sequence[str]) -> Iterator[Carrier]:
    known = objects.outputs(gone)
    for where in known.unreadable:
        yield f"{where}: {locks.LOCK}", "not known, for it is not what DVC writes"
    for one in known.carrying:
        yield f"{one.where}: {one.path}", f"in DVC's cache: {_size(one.objects)}"
    for one in known.unknown:
        yield f"{one.where}: {one.path}", f"not known, for its manifest is gone; in DVC's cache: {_size(one.objects)}"
    listed = {md5 for one in (*known.carrying, *known.unknown) for md5 in one.objects}
    raw = objects.of_raw_data(data, gone)
    if itself := [md5 for md5, is_image in raw.items() if is_image]:
        yield f"{data.path}.dvc", f"all its bytes, in DVC's cache: {_size(itself)}"
    listed |= known.free | set(raw)
    others = 0 if objects.are_shared() else sum(md5 not in listed for md5, _ in objects.all_of())
    if others:
        yield f"{others} other objects", f"not known, for no {locks.LOCK} lists them; in DVC's cache"


def _size(md5s: Sequence[str]) -> str:
    paths = [path for md5 in md5s if (path := locks.object_path(md5))]
    files = "1 object" if len(paths) == 1 else f"{len(paths)} objects"
    return f"{files}, {sum(path.stat().st_size for path in paths) / 1e6:.1f} MB"
