"""Record and Manifest: which images there are, with their bytes' sha256, labels, groups and splits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import stamps
from pipeline.atomic import replacing
from pipeline.errors import StateError

MANIFEST = Path("data/manifest.parquet")
STAMP = Path("data/manifest.json")
SPLITS = ("train", "val", "test")
COLUMNS = ("image_id", "path", "sha256", "label", "group", "split")
_SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])


@dataclass(frozen=True)
class Record:
    """One labelled image as a source yields it; `path` is relative to the data folder."""

    path: PurePosixPath
    label: str
    group: str | None = None
    stratum: str | None = None
    """What to keep balanced besides the label, when the split is stratified."""
    split: str | None = None
    """Where the source itself puts the image, when the split is predefined."""


@dataclass(frozen=True)
class Manifest:
    """One row per image, sorted by `image_id`; all columns have the same length N."""

    image_id: Sequence[str]
    """The path relative to the data folder: unique, and readable in every later table."""
    path: Sequence[str]
    """The path to open from the project's folder."""
    sha256: Sequence[str]
    label: Sequence[str]
    group: Sequence[str | None]
    split: Sequence[str]

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def classes(self) -> list[str]:
        """The labels there are, sorted: the order of every probability column."""
        return sorted(set(self.label))

    @property
    def folder(self) -> Path:
        """The data folder, in which all images lie."""
        return Path(self.path[0].removesuffix(self.image_id[0]))

    def require_folder(self, folder: Path) -> None:
        """Raise StateError unless the images lie in the folder that params.yaml names: no other is opened."""
        if len(self) and self.folder != folder:
            raise StateError(f"{MANIFEST}: path: got images in {self.folder}, expected {folder} as in params.yaml")

    def row_of(self) -> dict[str, int]:
        """Map image_id to row."""
        return {image_id: row for row, image_id in enumerate(self.image_id)}


def write(manifest: Manifest, facts: dict[str, object]) -> None:
    """Write the manifest and its stamp; the same manifest gives the same bytes."""
    table = pa.table({name: list(getattr(manifest, name)) for name in COLUMNS}, schema=_SCHEMA)
    with replacing(MANIFEST) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    stamps.write(STAMP, stamps.Stamp("prepare", outputs=stamps.hashes([MANIFEST]), inputs={}, facts=facts))


def read() -> Manifest:
    """Read the manifest, whose bytes must be the stamped ones and whose paths stay in one folder; StateError if not."""
    content = stamps.check(MANIFEST, stamps.read(STAMP))
    try:
        table = pq.read_table(BytesIO(content))
        if tuple(table.column_names) != COLUMNS:
            raise StateError(f"{MANIFEST}: columns: got {table.column_names}, expected {list(COLUMNS)}")
        found = Manifest(**{name: table[name].cast(pa.string()).to_pylist() for name in COLUMNS})
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise StateError(f"{MANIFEST}: not a manifest; run `dvc repro --force`") from error
    for row in range(len(found)):
        if problem := _problem(found, row):
            raise StateError(f"{MANIFEST}: row {row}: {problem}; run `dvc repro --force`")
    return found


def _problem(table: Manifest, row: int) -> str | None:
    """Say what is wrong with a row, if anything is; the path decides which file is opened."""
    if any(getattr(table, name)[row] is None for name in COLUMNS if name != "group"):
        return "an empty cell"
    image_id, inside = table.image_id[row], PurePosixPath(table.image_id[row])
    if inside.is_absolute() or ".." in inside.parts or not image_id.isprintable() or str(inside) != image_id:
        return f"image_id: got {image_id!r}, expected a path inside the data folder"
    if (expected := (table.folder / inside).as_posix()) != table.path[row]:
        return f"path: got {table.path[row]!r}, expected {expected!r}"
    if not re.fullmatch("[0-9a-f]{64}", table.sha256[row]):
        return f"sha256: got {table.sha256[row]!r}, expected 64 hexadecimal digits"
    return None if table.split[row] in SPLITS else f"split: got {table.split[row]!r}, expected one of {SPLITS}"
