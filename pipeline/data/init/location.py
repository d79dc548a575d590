"""From what a user names - a folder, a table, an archive, a URL, a data set of torchvision - to images in place."""

import csv
import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from pipeline.core import stamps
from pipeline.core.atomic import write_text
from pipeline.core.errors import InputError
from pipeline.core.sections import ARCHIVES, Data
from pipeline.data.init import recognition
from pipeline.data.init.recognition import Recognised
from pipeline.data.sources import SOURCES, place_of, remotes, tables
from pipeline.data.sources.place import TABLES, Place, is_table
from pipeline.data.sources.remotes import Listed

RAW = Path("data/raw")
"""Where what comes from elsewhere is put."""


def recognise(said: str) -> Recognised:
    """Say what params.yaml should say; what comes from a URL or from torchvision is fetched first.

    Raises:
        InputError: if there is nothing, or nothing that a source reads.

    """
    if said.startswith("torchvision:"):
        return _local(_data_set(said.removeprefix("torchvision:")))
    if "://" in said:
        return _remote(said)
    path = Path(said).expanduser() if said.startswith("~") else Path(said)
    if not said.strip() or not path.exists():
        raise InputError(f"--data: {said!r}: no such file or folder")
    return _local(_as_written(path))


def _as_written(path: Path) -> Path:
    """Return a path as params.yaml should have it: from the project's folder if it is inside, else from the root."""
    whole = path.resolve()
    return whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else whole


def _data_set(name: str) -> Path:
    from pipeline.data.init import torchvision_data  # noqa: PLC0415  # torch takes seconds

    torchvision_data.require_known(name)
    folder = RAW / name.lower()
    if not folder.exists():
        torchvision_data.lay_out(name, folder)
    return folder


def _local(path: Path) -> Recognised:
    if path.is_file() and is_table(path.name):
        place = place_of(Data(source="table", path=path.parent))
        if (read := place.table()) != path.name:
            raise InputError(f"--data: {path}: {read} lies beside it and would be read in its place; move it away")
        return _table(place)
    if path.is_file() and not path.name.lower().endswith(ARCHIVES):
        raise InputError(f"--data: {path}: a file, expected a folder, a table (.csv, .parquet) or an archive")
    place = place_of(Data(source="table", path=path))
    names = list(place.names())
    beside = [name for name in names if "/" not in name and is_table(name)]
    folders = {name.partition("/")[0] for name in names if "/" in name}
    if set(beside) & set(TABLES) or (beside and len(folders) < 2):  # a table for its own sake, or nothing else
        return _table(place)
    if path.is_dir() and (inner := _only_folder(names)):
        return _local(path / inner)
    source, why = recognition.tree(names, path)
    return Recognised(source, path, why, splits=source == "split_folders")


def _table(place: Place) -> Recognised:
    name = place.table()
    columns = recognition.columns(tables.columns(place), Path(place.shown(name)))
    renamed = columns if any(ours != theirs for ours, theirs in columns.items()) else {}
    return Recognised("table", place.data.path, f"{name} lists the images", renamed, splits="split" in columns)


def _only_folder(names: Sequence[str]) -> str | None:
    """Return the one folder in which everything lies in folders, as archives are often unpacked."""
    tops = {PurePosixPath(name).parts[0] for name in names}
    second = {PurePosixPath(name).parts[1] for name in names if len(PurePosixPath(name).parts) > 2}
    deep = all(len(PurePosixPath(name).parts) > 2 for name in names)
    return tops.pop() if len(tops) == 1 and deep and len(second) > 1 else None


def _remote(said: str) -> Recognised:
    """Fetch an archive or a table; of anything else, list what lies under it into a table.

    What is written lies in a folder of that URL's own, where nothing of the user's is.
    """
    url = _url(said)
    last = re.sub(r"[^A-Za-z0-9._-]", "-", url.rpartition("/")[2]).strip("-.") or "remote"
    folder = RAW / f"{last.partition('.')[0]}-{stamps.sha256_bytes(url.encode())[:8]}"
    if last.lower().endswith(ARCHIVES):
        return _local(_fetched(url, folder / last))
    if is_table(last):
        _fetched(url, folder / f"labels{Path(last).suffix.lower()}")
        found = _table(place_of(Data(source="table", path=folder)))
        root = url.rpartition("/")[0]
        return Recognised("table", folder, f"{url} lists the images", found.columns, root, found.splits)
    path = folder / "labels.csv"
    place = Listed(Data(source="table", path=path, remote=url))
    source, why = recognition.tree(list(place.names()), url)
    records = sorted(SOURCES[source](place), key=lambda record: record.path)
    _write(path, [(record.path, record.label, record.split) for record in records])
    return Recognised("table", folder, f"{why}; listed in {path}", {}, url, source == "split_folders")


def _url(said: str) -> str:
    """Return a URL as params.yaml may have it; InputError if it is none."""
    scheme, _, rest = said.partition("://")
    url = f"{scheme.lower()}://{rest}".rstrip("/")
    try:
        Data(source="table", path=RAW, remote=url)
    except ValidationError as error:
        raise InputError(f"--data: {said!r}: expected a URL such as s3://bucket/photos") from error
    return url


def _write(path: Path, rows: Sequence[tuple[str, str, str | None]]) -> None:
    splits = any(split for _, _, split in rows)
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "split") if splits else ("path", "label"))
    writer.writerows(row if splits else row[:2] for row in rows)
    write_text(path, text.getvalue())


def _fetched(url: str, path: Path) -> Path:
    """Read a file into a local one, anew each time, for it may have changed."""
    remotes.fetch(url, path)
    return path
