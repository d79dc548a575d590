"""The images of a data set: the entries of its source, all checked before an image is read."""

import itertools
import unicodedata
import zipfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pipeline.core.errors import InputError, first_five, unknown
from pipeline.core.sections import Data
from pipeline.data.manifest import Record
from pipeline.data.sources.catalogue import SOURCES
from pipeline.data.sources.contents import read_again
from pipeline.data.sources.folders import Folder
from pipeline.data.sources.place import Place, is_table
from pipeline.data.sources.remotes import Remote
from pipeline.data.sources.tars import Tar
from pipeline.data.sources.zips import Zip


def place_of(data: Data) -> Place:
    """Return the place of a data set; InputError if nothing usable is there."""
    where = f"params.yaml: data.path: {data.path}"
    if data.remote:
        if data.is_archive:
            raise InputError(f"{where}: an archive has its images in it: remove data.remote")
        if not data.path.exists():
            raise InputError(f"{where}: no such file or folder; put the table of what lies under data.remote there")
        return Remote(data)
    if data.path.is_dir():
        return Folder(data)
    if data.is_archive:
        if not data.path.is_file():
            raise InputError(f"{where}: no such file; put the archive there or change the path")
        return _archive(data)
    if is_table(data.path.name) and data.path.is_file():
        # DVC would notice changes of the table but not of the images, and so keep outdated numbers.
        raise InputError(
            f"{where}: a table, and DVC would not see its images change; set data.path: {data.path.parent}"
        )
    raise InputError(f"{where}: no such folder; put the images there or change the path")


def _archive(data: Data) -> Zip | Tar:
    """Open an archive by its content, whatever its name: in DVC's cache it has another one."""
    return Zip(data) if zipfile.is_zipfile(data.path) else Tar(data)


def carried(data: Data, path: Path, images: Collection[str]) -> dict[str, str]:
    """Return those of some images that an archive contains: path -> sha256.

    Args:
        data: as params.yaml has it.
        path: of that archive, or of another version of it.
        images: the sha256 of each image to look for.

    Raises:
        InputError: if the archive cannot be read.

    """
    archive = _archive(data.model_copy(update={"path": path}))
    found = read_again(archive, archive.files())
    return {archive.shown(name): sha256 for name, sha256 in found.items() if sha256 in images}


def listed(place: Place) -> list[Record]:
    """Return the records of the place's source, sorted by path.

    Raises:
        InputError: if the source is unknown or finds nothing; or with a line for each unusable entry.

    """
    source, where = place.data.source, place.data.path
    if source not in SOURCES:
        raise InputError(unknown("params.yaml: data.source", source, SOURCES))
    records = sorted(SOURCES[source](place), key=lambda record: record.path)
    names = [record.path for record in records]
    if not records:
        raise InputError(f"{where}: got 0 images, expected some that the source {source!r} can find")
    problems = [
        f"{place.shown(earlier)}: listed twice" for earlier, later in itertools.pairwise(names) if earlier == later
    ]
    problems += _unusable(place, names)
    problems += _labels(place, records)
    if problems:
        raise InputError(*first_five(problems, "problems"))
    return records


def _unusable(place: Place, names: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the images' names, or with the files of those names that are safe to open."""
    safe = []
    for name in names:
        if not name.isprintable():
            yield f"{place.shown(name)!r}: the name is not printable UTF-8; rename the file"
        elif name.startswith("/"):
            yield f"{name}: an absolute path, expected one from {place.data.remote or place.data.path} on"
        elif ".." in name and ".." in name.split("/"):
            yield f"{place.shown(name)}: '..' in a path: it leads out of the data folder, or in by a second way"
        else:
            safe.append(name)
    yield from place.problems(safe)


def _labels(place: Place, records: Sequence[Record]) -> Iterator[str]:
    """Yield the labels that are unusable, and the pairs that probably mean one class."""
    first = {record.label: record for record in reversed(records)}
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for label in sorted(first):
        if not label.strip() or not label.isprintable():
            shown = place.shown(first[label].path)
            yield f"{shown}: label: got {label!r}, expected a class name of printable characters"
        else:
            alike[_normalised(label)].append(label)
    for one, *others in alike.values():
        for other in others:
            paths = f"{first[one].path} and {first[other].path}"
            yield f"labels: got {one!r} and {other!r} ({paths}), expected one spelling of one class"


def _normalised(label: str) -> str:
    """Return a label without differences of case, spaces and accents' encoding; single letters keep their case."""
    composed = unicodedata.normalize("NFC", " ".join(label.split()))
    return unicodedata.normalize("NFC", composed.casefold()) if len(composed) > 1 else composed
