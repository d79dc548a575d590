"""SOURCES: name -> function that yields the Records of a place.

To add a source: write a function from a place to Records (paths relative to it) and decorate it. It gets names and the
bytes of small files from the place, and so works in folders and archives alike; docs/add-a-source.md has more.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from pipeline.core.errors import InputError, first_five, unknown
from pipeline.data.images.decoding import SUFFIXES
from pipeline.data.manifest import Record
from pipeline.data.sources import tables
from pipeline.data.sources.place import Place, normal

Source = Callable[[Place], Iterable[Record]]
_REGISTRY: dict[str, Source] = {}
SOURCES: Mapping[str, Source] = _REGISTRY

SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def _source(function: Source) -> Source:
    _REGISTRY[function.__name__] = function
    return function


@_source
def image_folder(place: Place) -> Iterator[Record]:
    """Read `<class>/**/<image>`: the first folder's name is the label."""
    loose = []
    for name in _images(place):
        label, _, rest = name.partition("/")
        if rest:
            yield Record(name, label)
        else:
            loose.append(f"{place.shown(name)}: not in a class folder; expected <class>/<image>")
    if loose:
        raise InputError(*first_five(sorted(loose), "images"))


@_source
def split_folders(place: Place) -> Iterator[Record]:
    """Read `<split>/<class>/**/<image>`, where a split is train, val (valid, validation) or test."""
    wrong = []
    for name in _images(place):
        split, label, *rest = name.split("/", 2) if "/" in name else ("", name)
        if rest and split.lower() in SPLIT_FOLDERS:
            yield Record(name, label, split=SPLIT_FOLDERS[split.lower()])
        elif rest:
            wrong.append(unknown(f"{place.shown(name)}: split", split, SPLIT_FOLDERS))
        else:
            wrong.append(f"{place.shown(name)}: not in a class folder; expected <split>/<class>/<image>")
    if wrong:
        raise InputError(*first_five(sorted(wrong), "images"))


@_source
def table(place: Place) -> Iterator[Record]:
    """Read a table, CSV or Parquet, with columns for path and label, and optional ones for group and split."""
    columns = place.data.columns
    rows = tables.rows(place, (columns.path, columns.label), (columns.group, columns.split))
    without = []
    for number, (path, label, group, split) in enumerate(rows, start=1):
        if path:
            yield Record(place.name_of(path), label or "", group=group or None, split=split or None)
        else:
            without.append(f"{place.shown_table(place.table())}: row {number}: no path")
    if without:
        raise InputError(*first_five(without, "rows"))


@_source
def csv_file(place: Place) -> Iterable[Record]:
    """Read a table: the older name of `table`."""
    return table(place)


@_source
def elpv(place: Place) -> Iterator[Record]:
    """Read the ELPV data set: solar cells, defective where the experts' mean probability exceeds one half.

    Its `labels.csv` has three columns, separated by white space: path, defect probability, cell type (mono or poly).
    """
    shown = place.shown("labels.csv")
    for number, line in enumerate(tables.text(shown, place.read("labels.csv")).splitlines(), start=1):
        try:
            path, probability, cell_type = line.split()
            label = "defective" if _probability(probability) > 0.5 else "functional"
        except ValueError as error:
            raise InputError(
                f"{shown}:{number}: got {line.strip()!r}, expected path, probability in [0, 1], type"
            ) from error
        yield Record(normal(path), label=label, stratum=cell_type)


def _images(place: Place) -> Iterator[str]:
    return (name for name in place.names() if name[name.rfind(".") :].lower() in SUFFIXES)


def _probability(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(text)
    return value
