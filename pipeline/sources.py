"""SOURCES: name -> function that yields the Records of a data folder.

To add a source: write a function from the folder to Records (paths relative to the folder) and decorate it.
"""

import csv
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TextIO

from pipeline.errors import InputError, first_five, unknown
from pipeline.images import SUFFIXES
from pipeline.manifest import Record

Source = Callable[[Path], Iterator[Record]]
_REGISTRY: dict[str, Source] = {}
SOURCES: Mapping[str, Source] = _REGISTRY


def _source(function: Source) -> Source:
    _REGISTRY[function.__name__] = function
    return function


def records_of(source: str, folder: Path) -> list[Record]:
    """Read the named source; InputError for an unknown name, a missing folder, unusable or duplicate entries."""
    if source not in SOURCES:
        raise InputError(unknown("params.yaml: data.source", source, SOURCES))
    if not folder.is_dir():
        raise InputError(f"params.yaml: data.path: {folder}: no such folder; put the images there or change the path")
    records = sorted(SOURCES[source](folder), key=lambda record: str(record.path))
    if not records:
        raise InputError(f"{folder}: got 0 images, expected some that the source {source!r} can find")
    problems = [
        f"{folder / earlier.path}: listed twice"
        for earlier, later in itertools.pairwise(records)
        if earlier.path == later.path
    ]
    problems += [problem for record in records if (problem := _unusable(folder, record))]
    if problems:
        raise InputError(*first_five(problems, "problems"))
    return records


def _unusable(folder: Path, record: Record) -> str | None:
    """Say what is wrong with a record's path or label, if anything is."""
    path = folder / record.path
    if not str(record.path).isprintable() or not _is_utf8(str(record.path)):
        return f"{str(path)!r}: the name is not printable UTF-8; rename the file"
    if not record.label.strip() or not record.label.isprintable():
        return f"{path}: label: got {record.label!r}, expected a class name of printable characters"
    if ".." in record.path.parts:
        return f"{path}: '..' in a path: it leads out of the data folder, or in by a second way"
    if not path.is_file():
        return f"{path}: {'not a regular file' if path.exists() else 'no such file'}"
    if not path.resolve().is_relative_to(folder.resolve()):
        return f"{path}: leads out of the data folder {folder}"
    return None


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@_source
def image_folder(folder: Path) -> Iterator[Record]:
    """Read `<class>/**/<image>`: the first folder's name is the label."""
    for path in folder.rglob("*"):
        if path.is_symlink() and path.is_dir():
            raise InputError(f"{path}: a link to a folder is not followed; move the folder here")
        inside = PurePosixPath(path.relative_to(folder).as_posix())
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.suffix.lower() in SUFFIXES and len(inside.parts) > 1 and not hidden:
            yield Record(inside, label=inside.parts[0])


@_source
def csv_file(folder: Path) -> Iterator[Record]:
    """Read `labels.csv` in the folder: columns path and label, if wanted also group and split."""
    table = folder / "labels.csv"
    required, optional = {"path", "label"}, {"group", "split"}
    with _open(table) as stream:
        reader = csv.DictReader(stream)
        columns = list(reader.fieldnames or [])
        if required - set(columns) or len(set(columns)) < len(columns):
            expected = f"{sorted(required)} and if wanted {sorted(optional)}, each once"
            raise InputError(f"{table}: columns: got {columns}, expected {expected}")
        for row in reader:
            cells = {name: (row[name] or "").strip() for name in (required | optional) & set(columns)}
            extra = {name: cells[name] or None for name in optional & set(columns)}
            yield Record(PurePosixPath(cells["path"]), label=cells["label"], **extra)


@_source
def elpv(folder: Path) -> Iterator[Record]:
    """Read the ELPV data set: solar cells, defective where the experts' mean probability exceeds one half.

    `labels.csv` there has three columns apart by white space: path, defect probability, cell type (mono or poly).
    """
    table = folder / "labels.csv"
    with _open(table) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                path, probability, cell_type = line.split()
                label = "defective" if _probability(probability) > 0.5 else "functional"
            except ValueError as error:
                raise InputError(
                    f"{table}:{number}: got {line.strip()!r}, expected path, probability in [0, 1], type"
                ) from error
            yield Record(PurePosixPath(path), label=label, stratum=cell_type)


def _probability(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(text)
    return value


@contextmanager
def _open(table: Path) -> Iterator[TextIO]:
    """Open a table in UTF-8, with or without a byte-order mark; whatever is wrong with the file is an InputError."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            yield stream
    except OSError as error:
        raise InputError(f"{table}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{table}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{table}: not a table ({error})") from error
