"""Finds the images behind what a user names: a folder, table, archive, URL or data set of torchvision."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from pipeline.core import stamps
from pipeline.core.errors import InputError, nearest
from pipeline.core.sections import ARCHIVES, Data
from pipeline.core.tables import write_csv
from pipeline.data.init import recognition
from pipeline.data.init.recognition import Layout
from pipeline.data.sources import SOURCES, place_of, remotes, tables
from pipeline.data.sources.place import TABLES, Place, is_table
from pipeline.data.sources.remotes import ListableRemote

RAW = Path("data/raw")
"""Where downloads are put."""


def recognise(name: str) -> Layout:
    """Return the layout of the images behind a name, after downloading a URL's table or archive, or torchvision's data.

    Raises:
        InputError: if nothing is there, or nothing that a source can read.

    """
    if name.startswith("torchvision:"):
        return _local(_data_set(name.removeprefix("torchvision:")))
    if "://" in name:
        return _remote(name)
    path = Path(name).expanduser() if name.startswith("~") else Path(name)
    if not name.strip() or not path.exists():
        raise InputError(f"--data: {name!r}: no such file or folder; {_next_step(path)}")
    return _local(_as_written(path))


def _next_step(path: Path) -> str:
    """Say what to try where nothing lies at a path: the nearest name beside it, or else how paths are read."""
    beside = (one.name for one in path.parent.iterdir()) if path.name and path.parent.is_dir() else ()
    if near := nearest(path.name, beside):
        return f"did you mean {str(path.with_name(near))!r}?"
    return f"a relative path starts in {Path.cwd()}; `headswap init --help` says what can be given"


def _as_written(path: Path) -> Path:
    """Return a path as params.yaml should have it: relative to the project if it is inside, else absolute."""
    whole = path.resolve()
    return whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else whole


def _data_set(name: str) -> Path:
    from pipeline.data.init import torchvision_data  # noqa: PLC0415  # torch takes seconds

    torchvision_data.require_known(name)
    folder = RAW / name.lower()
    if not folder.exists():
        torchvision_data.lay_out(name, folder)
    return folder


def _local(path: Path) -> Layout:
    if path.is_file() and is_table(path.name):
        place = place_of(Data(source="table", path=path.parent))
        if (other := place.table()) != path.name:
            raise InputError(f"--data: {path}: {other} lies beside it and would be read instead; move it away")
        return _table(place)
    if path.is_file() and not path.name.lower().endswith(ARCHIVES):
        raise InputError(f"--data: {path}: a file, expected a folder, a table (.csv, .parquet) or an archive")
    place = place_of(Data(source="table", path=path))
    names = list(place.names())
    beside = [name for name in names if "/" not in name and is_table(name)]
    folders = {name.partition("/")[0] for name in names if "/" in name}
    if set(beside) & set(TABLES) or (beside and len(folders) < 2):  # named as expected, or all there is
        return _table(place)
    if path.is_dir() and (inner := _only_folder(names)):
        return _local(path / inner)
    source, why = recognition.tree(names, path)
    return Layout(source, path, why, splits=source == "split_folders")


def _table(place: Place) -> Layout:
    name = place.table()
    columns = recognition.columns(tables.columns(place), Path(place.shown(name)))
    renamed = columns if any(ours != theirs for ours, theirs in columns.items()) else {}
    return Layout("table", place.data.path, f"{name} lists the images", renamed, splits="split" in columns)


def _only_folder(names: Sequence[str]) -> str | None:
    """Return the folder that holds everything, itself in folders, as unpacked archives often have one."""
    tops = {PurePosixPath(name).parts[0] for name in names}
    second = {PurePosixPath(name).parts[1] for name in names if len(PurePosixPath(name).parts) > 2}
    deep = all(len(PurePosixPath(name).parts) > 2 for name in names)
    return tops.pop() if len(tops) == 1 and deep and len(second) > 1 else None


def _remote(given: str) -> Layout:
    """Download an archive or a table; for any other URL, write a table of what lies under it.

    Each URL has its own folder for that, away from the user's files.
    """
    url = _url(given)
    last = re.sub(r"[^A-Za-z0-9._-]", "-", url.rpartition("/")[2]).strip("-.") or "remote"
    folder = RAW / f"{last.partition('.')[0]}-{stamps.sha256_bytes(url.encode())[:8]}"
    if last.lower().endswith(ARCHIVES):
        return _local(remotes.fetch(url, folder / last))
    if is_table(last):
        remotes.fetch(url, folder / f"labels{Path(last).suffix.lower()}")
        found = _table(place_of(Data(source="table", path=folder)))
        root = url.rpartition("/")[0]
        return Layout("table", folder, f"{url} lists the images", found.columns, root, found.splits)
    path = folder / "labels.csv"
    place = ListableRemote(Data(source="table", path=path, remote=url))
    source, why = recognition.tree(list(place.names()), url)
    records = sorted(SOURCES[source](place), key=lambda record: record.path)
    splits = any(record.split for record in records)
    names = ("path", "label", "split") if splits else ("path", "label")
    write_csv(path, [names, *([getattr(record, name) for name in names] for record in records)])
    return Layout("table", folder, f"{why}; listed in {path}", {}, url, source == "split_folders")


def _url(given: str) -> str:
    """Return a URL in the form for params.yaml; InputError if it is not one."""
    scheme, _, rest = given.partition("://")
    url = f"{scheme.lower()}://{rest}".rstrip("/")
    try:
        Data(source="table", path=RAW, remote=url)
    except ValidationError as error:
        raise InputError(f"--data: {given!r}: expected a URL such as s3://bucket/photos") from error
    return url
