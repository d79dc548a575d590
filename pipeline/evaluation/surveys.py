"""Survey of a backbone's embeddings: a map of all images and the transferability scores, and its files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import artifacts, stamps
from pipeline.core.atomic import replacing
from pipeline.evaluation.transferability import Transferability

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Survey:
    """Map and scores of one backbone's embeddings, before any head is trained."""

    image_id: Sequence[str]
    """(N,) all embedded images, in manifest order."""
    position: Floats
    """(N, 2) on the map, within the unit square."""
    scores: Transferability
    """Of the training images."""


path_of, stamp_path = artifacts.SURVEY.at, artifacts.SURVEY.stamp_at
"""Of a backbone; the stamp has the scores."""


def write(backbone: str, survey: Survey, inputs: Mapping[str, str]) -> None:
    """Write a survey, one row per image, and its stamp with the scores."""
    path, position = path_of(backbone), survey.position.astype(np.float64)
    columns = {"image_id": pa.array(survey.image_id, pa.string()), "x": position[:, 0], "y": position[:, 1]}
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")
    facts = {"scores": asdict(survey.scores)}
    stamps.write(stamp_path(backbone), stamps.Stamp(f"survey@{backbone}", stamps.hashes([path]), inputs, facts))


def read(backbone: str) -> Survey:
    """Read a survey; StateError if its bytes differ from the stamp."""
    path, stamp = path_of(backbone), stamps.read(stamp_path(backbone))
    table = pq.read_table(BytesIO(stamps.check(path, stamp)))
    with stamps.requiring_facts(stamp_path(backbone)):
        position = np.column_stack([table[axis].to_numpy() for axis in ("x", "y")])
        return Survey(table["image_id"].to_pylist(), position, Transferability(**stamp.facts["scores"]))
