"""The objects in DVC's local cache, sorted by whether the manifest that their stage read lists some images.

dvc.lock holds the md5 of the manifest for every stage that read it, also after an unfinished `dvc repro`. An object
that no dvc.lock lists may hold anything.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core import locks, stamps
from pipeline.core.errors import InputError, StateError
from pipeline.core.locks import FOLDER_SUFFIX, Locked
from pipeline.core.sections import Data
from pipeline.data import manifest, sources
from pipeline.data.manifest import MANIFEST


@dataclass(frozen=True)
class Output:
    """An output of a stage in some dvc.lock, and those of its objects that are in the cache."""

    where: str
    """dvc.lock or a commit."""
    path: str
    objects: tuple[str, ...]
    """md5s: its own, and of a folder those of the files in it."""


@dataclass
class Outputs:
    """All outputs in any dvc.lock whose objects are in the cache."""

    carrying: list[Output] = field(default_factory=list)
    unknown: list[Output] = field(default_factory=list)
    free: set[str] = field(default_factory=set)
    """md5s in outputs free of the images: such an object is free, in whatever other output it is."""
    unreadable: list[str] = field(default_factory=list)
    """Commits whose dvc.lock cannot be read."""


def outputs(images: Collection[str]) -> Outputs:
    """Sort the outputs in dvc.lock, of the working tree and all commits, by whether they carry images (sha256s).

    Every output is named once, with the first dvc.lock that lists it.

    Raises:
        StateError: if dvc.lock in the working tree is not what DVC writes.

    """
    found, known, seen = Outputs(), dict[str, bool | None](), set[tuple[bool | None, str, str]]()
    for where, lock in locks.history():
        if lock is None:
            found.unreadable.append(where)
            continue
        for stage in lock.values():
            carries = _carries_any(stage, images, known)
            for out in stage.outs.values():
                if (carries, out.path, out.md5) not in seen:
                    seen.add((carries, out.path, out.md5))
                    output = Output(where, out.path, tuple(parts(out.md5)))
                    if carries is False:
                        found.free.update(output.objects)
                    else:
                        (found.carrying if carries else found.unknown).append(output)
    found.carrying = list(_without(found.carrying, found.free))
    found.unknown = list(_without(found.unknown, found.free | {md5 for one in found.carrying for md5 in one.objects}))
    return found


def _carries_any(stage: Locked, images: Collection[str], known: dict[str, bool | None]) -> bool | None:
    """Return whether a stage read a manifest that lists one of the images; None if that is not known."""
    entry = stage.outs.get(MANIFEST.as_posix()) or stage.deps.get(MANIFEST.as_posix())
    if entry is None:
        return None
    if entry.md5 not in known:
        known[entry.md5] = _lists_any(entry.md5, images)
    return known[entry.md5]


def _lists_any(md5: str, images: Collection[str]) -> bool | None:
    """Look the images up in a manifest; None if it is gone, altered or no table."""
    try:
        content = locks.read_object(md5)
        return None if content is None else not set(images).isdisjoint(manifest.columns_of(content, ["sha256"])[0])
    except StateError:
        return None


def _without(listed: list[Output], free: set[str]) -> Iterator[Output]:
    """Yield the outputs with objects that are not free, and only these."""
    for one in listed:
        if left := tuple(md5 for md5 in one.objects if md5 not in free):
            yield Output(one.where, one.path, left)


def parts(md5: str) -> Iterator[str]:
    """Yield the cached objects of a file or folder: itself, then the files that a folder lists."""
    if locks.object_path(md5) is None:
        return
    yield md5
    if md5.endswith(FOLDER_SUFFIX):
        for file in locks.folder_files(md5).values():  # none if the list is altered
            if locks.object_path(file) is not None:
                yield file


def are_shared() -> bool:
    """Return whether the objects lie outside this project, perhaps among those of other projects."""
    root = locks.objects_of(Path.cwd())
    return root is not None and not root.absolute().is_relative_to(Path.cwd())


def all_of() -> Iterator[tuple[str, Path]]:
    """Yield md5 and path of every object in the local cache, sorted."""
    root = locks.objects_of(Path.cwd())
    for path in sorted(root.glob("??/*")) if root else ():
        if re.fullmatch(rf"[0-9a-f]{{32}}({re.escape(FOLDER_SUFFIX)})?", path.parent.name + path.name):
            yield path.parent.name + path.name, path


def of_raw_data(data: Data, images: Collection[str]) -> dict[str, bool]:
    """Return the objects of raw data that DVC tracks, alone or with a folder around it: md5 -> whether it is an image.

    A raw file holds no image but itself, so its own bytes decide, or those of an archive's members.
    """
    found: dict[str, bool] = {}
    places = [place for place in (data.path, *data.path.parents) if place.name]
    for file in (place.with_name(f"{place.name}.dvc") for place in places):
        for out in locks.load_yaml(file).get("outs", []) if file.is_file() else ():
            for md5 in parts(str(out.get("md5"))) if isinstance(out, dict) else ():
                path = locks.object_path(md5)
                if path and md5 not in found:
                    found[md5] = not md5.endswith(FOLDER_SUFFIX) and _carries(data, path, images)
    return found


def _carries(data: Data, path: Path, images: Collection[str]) -> bool:
    if stamps.sha256_file(path) in images:
        return True
    try:
        return data.is_archive and bool(sources.carried(data, path, images))
    except InputError:  # a file beside the archive
        return False
