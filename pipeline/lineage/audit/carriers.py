"""All that may carry an image's data: raw files, what stages made of them, caches, checkpoints, DVC's objects.

`find` lists for a person what still carries some images; `forgotten_images` proves that nothing does.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import artifacts, locks, stamps
from pipeline.core.artifacts import Artifact
from pipeline.core.errors import StateError
from pipeline.core.locks import Lock
from pipeline.core.params import PARAMS, Params
from pipeline.core.sections import Data, Embed
from pipeline.core.stamps import Stamp
from pipeline.data import sources
from pipeline.data.images import thumbnails
from pipeline.data.manifest import MANIFEST, Manifest
from pipeline.embeddings import skipped
from pipeline.evaluation import runs, surveys
from pipeline.lineage.audit import objects
from pipeline.quality import signatures

Carrier = tuple[str, str]
"""A place, and how it carries the images."""

OLDER = f"not known: made from an older {MANIFEST}, or altered"
DEFAULT_CACHE: Path = Embed.model_fields["cache"].default
APART = (artifacts.MANIFEST, artifacts.EMBEDDINGS)
"""Artifacts that list their images by sha256: they are searched, not judged by their stamp."""
_LISTED: Mapping[Artifact, Callable[..., Iterable[str]]] = {
    artifacts.THUMBNAILS: lambda: thumbnails.read().image_id,
    artifacts.SPRITE: lambda: thumbnails.read().image_id,
    artifacts.SKIPPED: skipped.read,
    artifacts.PREDICTIONS: lambda backbone, name: runs.read(backbone, name).predictions.image_id,
    artifacts.SURVEY: lambda backbone: surveys.read(backbone).image_id,
}
"""The ids in an artifact that holds only some images of its manifest."""


def raw_files(data: Data, gone: set[str], hashed: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield path and sha256 of the files in the data folder, or in the archive, that have an image's bytes."""
    if data.is_archive:
        yield from sources.carried(data, data.path, gone).items() if data.path.exists() else ()
        return
    files = sorted(path for path in data.path.rglob("*") if path.is_file())
    with ThreadPoolExecutor() as pool:  # hashlib releases the interpreter's lock
        found = pool.map(lambda path: hashed.get(path.as_posix()) or _hash(path), files)
        yield from ((path.as_posix(), sha) for path, sha in zip(files, found, strict=True) if sha in gone)


def _hash(path: Path) -> str:
    try:
        return stamps.sha256_file(path)
    except StateError:  # gone meanwhile, or not to be read
        return ""


def caches(params: Params) -> list[Path]:
    """Return the existing cache folders: the one in params.yaml, the default, and those in any dvc.lock of the history.

    When params.yaml names another folder, rows stay in the earlier one.
    """
    earlier = {DEFAULT_CACHE, signatures.CACHE}.union(*(_caches_of(lock) for _, lock in locks.history() if lock))
    found = {params.embed.cache.resolve(): params.embed.cache}
    for folder in sorted(earlier):
        if os.path.isdir(folder):  # noqa: PTH112  # False, not an error, without permission
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _caches_of(lock: Lock) -> Iterator[Path]:
    for name, stage in lock.items():
        settings = stage.params.get(PARAMS.as_posix(), {}).get("embed")
        if name.partition("@")[0] == "embed" and isinstance(settings, dict):
            yield Path(str(settings.get("cache", DEFAULT_CACHE)))


def checkpoints() -> list[Path]:
    """Return the folder of every training that has checkpoints; its time changes with every file written in it."""
    return sorted(path for path in runs.CHECKPOINTS.glob("*") if path.is_dir() and not path.is_symlink())


@dataclass(frozen=True)
class Derived:
    """What a stage made of images; its run need not be listed in params any more."""

    artifact: Artifact
    names: tuple[str, ...]
    """Backbone and run."""
    stamp_path: Path
    stamp: Stamp | StateError
    """Or why it cannot be read."""


def derived() -> Iterator[Derived]:
    """Yield all that carries images and has a stamp that names the manifest it was made from."""
    for one in artifacts.ALL:
        for path, names in one.stamps_here().items() if one.carries and one not in APART else ():
            try:
                yield Derived(one, names, path, stamps.read(path))
            except StateError as error:
                yield Derived(one, names, path, error)


# --- For a person to read -----------------------------------------------------------------------------------------


def find(params: Params, table: Manifest | None, gone: Sequence[str]) -> Iterator[Carrier]:
    """Yield what carries the images (sha256s): raw files, then what was made of them, then DVC's objects."""
    where = ", in an archive" if params.data.is_archive else ""
    for file, _ in raw_files(params.data, set(gone), {}):
        yield file, f"the image itself{where}: yours to delete"
    rows = zip(table.image_id, table.split, table.sha256, strict=True) if table is not None else ()
    split_of = {image_id: split for image_id, split, sha256 in rows if sha256 in gone}
    for image_id in sorted(split_of) if params.data.remote else ():
        yield f"{params.data.remote}/{image_id}", "the image itself: yours to delete"
    if split_of:
        yield str(MANIFEST), artifacts.MANIFEST.carries
    manifest_sha256 = stamps.sha256_file(MANIFEST) if table is not None else None
    for one in derived():
        held, path = _held(one, split_of, manifest_sha256), one.artifact.at(*one.names)
        if path.exists() and (held is None or not split_of.keys().isdisjoint(held)):
            yield str(path), OLDER if held is None else _how(one.artifact, split_of)
    yield from _objects(params.data, gone)


def _held(one: Derived, split_of: Mapping[str, str], manifest_sha256: str | None) -> Iterable[str] | None:
    """Return the ids in what was made from the current manifest; None if made from another, or unreadable."""
    if isinstance(one.stamp, StateError):
        return None
    if one.artifact.role == "run" and "failed" in one.stamp.facts:
        return ()
    if one.stamp.inputs.get(MANIFEST.as_posix()) != manifest_sha256:
        return None
    if one.artifact is artifacts.MODEL:
        return [image_id for image_id, split in split_of.items() if split != "test"]
    try:
        return _LISTED[one.artifact](*one.names) if one.artifact in _LISTED else split_of
    except StateError:
        return None


def _how(artifact: Artifact, split_of: Mapping[str, str]) -> str:
    chosen = artifact is artifacts.MODEL and "train" not in split_of.values()
    return "a model chosen by its decision on it" if chosen else artifact.carries


def _objects(data: Data, gone: Sequence[str]) -> Iterator[Carrier]:
    known = objects.outputs(gone)
    for where in known.unreadable:
        yield f"{where}: {locks.LOCK}", "not known, as DVC did not write it"
    for one in known.carrying:
        yield f"{one.where}: {one.path}", f"in DVC's cache: {_size(one.objects)}"
    for one in known.unknown:
        yield f"{one.where}: {one.path}", f"not known, as its manifest is gone; in DVC's cache: {_size(one.objects)}"
    listed = {md5 for one in (*known.carrying, *known.unknown) for md5 in one.objects}
    raw = objects.of_raw_data(data, gone)
    if itself := [md5 for md5, is_image in raw.items() if is_image]:
        yield f"{data.path}.dvc", f"all its bytes, in DVC's cache: {_size(itself)}"
    listed |= known.free | set(raw)
    others = 0 if objects.are_shared() else sum(md5 not in listed for md5, _ in objects.all_of())
    if others:
        yield f"{others} other objects", f"not known, as no {locks.LOCK} lists them; in DVC's cache"


def _size(md5s: Sequence[str]) -> str:
    paths = [path for md5 in md5s if (path := locks.object_path(md5))]
    files = "1 object" if len(paths) == 1 else f"{len(paths)} objects"
    return f"{files}, {sum(path.stat().st_size for path in paths) / 1e6:.1f} MB"
