"""Record and Manifest: which images there are, with their bytes' sha256, labels, groups and splits."""

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
    """Read the manifest whose bytes are the stamped ones; StateError otherwise."""
    content = stamps.check(MANIFEST, stamps.read(STAMP))
    table = pq.read_table(BytesIO(content))
    if tuple(table.column_names) != COLUMNS:
        raise StateError(f"{MANIFEST}: columns: got {table.column_names}, expected {list(COLUMNS)}")
    return Manifest(**{name: table[name].to_pylist() for name in COLUMNS})
