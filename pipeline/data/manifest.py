"""Record and Manifest: which images there are, with their bytes' sha256, labels, groups and splits."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core import artifacts, stamps
from pipeline.core.atomic import replacing
from pipeline.core.errors import StateError, one_line
from pipeline.core.params import Params
from pipeline.core.sections import STORE, Columns

MANIFEST, STAMP = artifacts.MANIFEST.at(), artifacts.MANIFEST.stamp_at()
SPLITS = ("train", "val", "test")
COLUMNS = ("image_id", "path", "sha256", "label", "group", "split")
_SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled image as a source yields it."""

    path: str
    """Relative to the data folder, archive or remote root, with '/' between its parts."""
    label: str
    group: str | None = None
    stratum: str | None = None
    """What a stratified split keeps balanced besides the label."""
    split: str | None = None
    """The split that the source states, for a predefined split."""


@dataclass(frozen=True)
class Manifest:
    """One row per image, sorted by `image_id`; all columns have the same length N."""

    image_id: Sequence[str]
    """The path inside the data folder, archive or remote root: unique, and used in every later table."""
    path: Sequence[str]
    """The path to open, relative to the project's folder."""
    sha256: Sequence[str]
    label: Sequence[str]
    group: Sequence[str | None]
    split: Sequence[str]

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def classes(self) -> list[str]:
        """The distinct labels, sorted: the order of every probability column."""
        return sorted(set(self.label))

    @property
    def folder(self) -> Path:
        """The folder of all images: the data folder or the store."""
        if self.path[0] == stored_path(self.sha256[0]):
            return STORE
        return Path(self.path[0].removesuffix(self.image_id[0]))

    def require_folder(self, folder: Path) -> None:
        """Raise StateError unless the images lie in `params.data.folder`: files elsewhere are not opened."""
        if len(self) and self.folder != folder:
            raise StateError(f"{MANIFEST}: path: got images in {self.folder}, expected {folder} as in params.yaml")

    def shown(self, row: int) -> str:
        """Return what a person would look for: the path, or the id of an image in the store."""
        return self.image_id[row] if self.path[row] == stored_path(self.sha256[row]) else self.path[row]

    def row_of(self) -> dict[str, int]:
        """Map image_id to row."""
        return {image_id: row for row, image_id in enumerate(self.image_id)}

    def group_of(self) -> dict[str, str]:
        """Map image_id to group, for the images that have one."""
        return {image_id: group for image_id, group in zip(self.image_id, self.group, strict=True) if group}


def rows_of(column: Sequence[str | None]) -> dict[str, list[int]]:
    """Return the rows of each value in a column, ascending; empty cells are left out.

    >>> rows_of(["cat", None, "dog", "cat"])
    {'cat': [0, 3], 'dog': [2]}
    """
    found = defaultdict(list)
    for row, value in enumerate(column):
        if value is not None:
            found[value].append(row)
    return dict(found)


def stored_path(sha256: str) -> str:
    """Return the path in the store of the image with this sha256."""
    return f"{STORE.as_posix()}/{sha256[:2]}/{sha256}"


def image_bytes(path: Path, sha256: str) -> bytes:
    """Return an image's bytes; StateError if the file is gone or has changed since `prepare`."""
    in_store = path.as_posix() == stored_path(sha256)
    if in_store and not path.exists():
        raise StateError(f"{path}: gone from the store; run `headswap prepare`, which reads it where it came from")
    content = stamps.read_bytes(path)
    if stamps.sha256_bytes(content) != sha256:
        remedy = "delete it and run `headswap prepare`" if in_store else "run `dvc repro`"
        raise StateError(f"{path}: changed since `prepare` hashed it; {remedy}")
    return content


def settings_of(params: Params) -> dict[str, object]:
    """Return the settings that decide the rows, besides the images, as the stamp states them."""
    data = params.data
    facts = {"source": data.source, "seed": params.seed, "split": params.split.model_dump()}
    facts |= {"remote": data.remote} if data.remote else {}
    return facts | ({"columns": data.columns.model_dump()} if data.columns != Columns() else {})


def write(manifest: Manifest, facts: dict[str, object]) -> None:
    """Write the manifest and its stamp; the same manifest gives the same bytes."""
    table = pa.table({name: getattr(manifest, name) for name in COLUMNS}, schema=_SCHEMA)
    with replacing(MANIFEST) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    stamps.write(STAMP, stamps.Stamp("prepare", outputs=stamps.hashes([MANIFEST]), inputs={}, facts=facts))


def read() -> Manifest:
    """Read the manifest; StateError unless its bytes are the stamped ones and its paths stay in one folder."""
    content = stamps.check(MANIFEST, stamps.read(STAMP))
    try:
        table = pq.ParquetFile(BytesIO(content)).read()  # `read_table` imports for 0.2 s first
        if tuple(table.column_names) != COLUMNS:
            raise StateError(f"{MANIFEST}: columns: got {table.column_names}, expected {list(COLUMNS)}")
        table = table.cast(_SCHEMA).combine_chunks()
        found = Manifest(**{name: table[name].to_pylist() for name in COLUMNS})
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise StateError(f"{MANIFEST}: not a manifest; run `dvc repro --force`") from error
    for row in _suspect_rows(found, table):
        if problem := _problem(found, row):
            raise StateError(f"{MANIFEST}: row {row}: {problem}; run `dvc repro --force`")
    return found


def columns_of(content: bytes, names: Sequence[str]) -> list[list[str]]:
    """Return columns of a manifest from the repository's history; StateError, without a path, if it is not one.

    Do not open its paths: only `read` checks that they stay in the data folder.
    """
    try:
        table = pq.ParquetFile(BytesIO(content)).read(columns=list(names))
        table = table.cast(pa.schema([(name, pa.string()) for name in table.column_names]))
        found = [table[name].to_pylist() for name in names]
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise StateError(f"not a manifest ({one_line(error)})") from error
    for name in names:
        if name != "group" and table[name].null_count:
            raise StateError(f"not a manifest (an empty cell in {name})")
    if (
        "sha256" in names
        and not pc.all(pc.match_substring_regex(table["sha256"], "^[0-9a-f]{64}$"), min_count=0).as_py()
    ):
        raise StateError("not a manifest (sha256: expected 64 hexadecimal digits)")
    return found


def _suspect_rows(found: Manifest, table: Any) -> list[int]:  # noqa: ANN401  # pyarrow has no types
    """Return the rows that need a closer look: a million rows take a second together, and ten one by one."""
    if not len(found):
        return []
    if any(table[name].null_count for name in COLUMNS if name != "group"):
        return list(range(len(found)))
    in_store = found.folder == STORE
    prefix = pa.scalar("" if found.folder == Path() else f"{found.folder.as_posix()}/".replace("//", "/"))
    parts = [STORE.as_posix(), pc.utf8_slice_codeunits(table["sha256"], 0, 2), table["sha256"], "/"]
    expected = pc.binary_join_element_wise(*(parts if in_store else [prefix, table["image_id"], ""]))
    valid = [
        pc.equal(table["path"], expected),
        pc.invert(pc.match_substring_regex(table["image_id"], r"(^|/)\.{0,2}(/|$)")),  # empty, `.` or `..`
        pc.match_substring_regex(table["sha256"], "^[0-9a-f]{64}$"),
        pc.is_in(table["split"], pa.array(SPLITS)),
        pa.array([image_id.isprintable() for image_id in found.image_id]),
    ]
    return np.flatnonzero(~np.logical_and.reduce([np.asarray(one) for one in valid])).tolist()


def _problem(table: Manifest, row: int) -> str | None:
    """Return what is wrong with a row, if anything is; its path decides which file is opened."""
    if any(getattr(table, name)[row] is None for name in COLUMNS if name != "group"):
        return "an empty cell"
    image_id, inside = table.image_id[row], PurePosixPath(table.image_id[row])
    if inside.is_absolute() or ".." in inside.parts or not image_id.isprintable() or str(inside) != image_id:
        return f"image_id: got {image_id!r}, expected a path inside the data folder"
    if not re.fullmatch("[0-9a-f]{64}", table.sha256[row]):
        return f"sha256: got {table.sha256[row]!r}, expected 64 hexadecimal digits"
    in_store = table.folder == STORE
    expected = stored_path(table.sha256[row]) if in_store else (table.folder / inside).as_posix()
    if expected != table.path[row]:
        return f"path: got {table.path[row]!r}, expected {expected!r}"
    return None if table.split[row] in SPLITS else f"split: got {table.split[row]!r}, expected one of {SPLITS}"
