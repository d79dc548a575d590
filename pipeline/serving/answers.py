"""What a trained run says of new images, and the table of it: CSV, JSON or Parquet."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import heads
from pipeline.core.atomic import replacing, write_json, write_text
from pipeline.core.errors import InputError
from pipeline.core.params import Params
from pipeline.core.sections import Data
from pipeline.evaluation import neighbours, unlikeness
from pipeline.evaluation.scoring.predictions import Predictions
from pipeline.serving import places
from pipeline.serving.embedded import New
from pipeline.serving.trained import Trained

SUFFIXES = (".csv", ".json", ".parquet")
_BLOCK = 4096
"""Images whose distances are computed at a time: bounds the memory that their embeddings take."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """A row per image, n in all."""

    path: Sequence[str]
    label: Sequence[str]
    classes: Sequence[str]
    probability: Floats
    """(n, K)."""
    distance: Floats
    """(n,) cosine distances of the embeddings to the nearest training image, 0 to 2."""
    percentile: Floats
    """(n,) of the distances between training images, 0 to 100."""

    @property
    def unlike(self) -> npt.NDArray[np.bool_]:
        """Which images are unlike the training images, (n,)."""
        return np.asarray(self.percentile >= unlikeness.UNLIKE)

    def columns(self) -> dict[str, list[Any]]:
        """Return the table: path, label, p_<class> ..., distance, percentile, unlike."""
        return {
            "path": list(self.path),
            "label": list(self.label),
            **{f"p_{name}": self.probability[:, number].tolist() for number, name in enumerate(self.classes)},
            "distance": self.distance.tolist(),
            "percentile": self.percentile.tolist(),
            "unlike": self.unlike.tolist(),
        }


def answers(new: New, trained: Trained, params: Params) -> Answers:
    """Classify images, and say how unlike the training images each is; StateError as `pixels.probabilities`."""
    if trained.network is None:
        probability = heads.predict(trained.head, new.features)
    else:
        from pipeline.serving import pixels  # noqa: PLC0415  # a scikit-learn head needs no torch

        probability = pixels.probabilities(trained.network, new.paths, new.sha256, params.embed)
    paths = [path.as_posix() for path in new.paths]
    predicted = Predictions(paths, [""] * len(paths), [""] * len(paths), trained.classes, probability)
    decided = (trained.rule.apply(predicted) if trained.rule else predicted).decision()
    distance, percentile = _unlikeness(new, trained, params.seed)
    labels = [trained.classes[number] for number in decided]
    return Answers(paths, labels, trained.classes, probability, distance, percentile)


def _unlikeness(new: New, trained: Trained, seed: int) -> tuple[Floats, Floats]:
    train = neighbours.of_length_one(trained.training_features())
    starts = range(0, len(new.features), _BLOCK)
    blocks = (neighbours.of_length_one(new.features[start : start + _BLOCK]) for start in starts)
    distance = np.concatenate([unlikeness.distances(block, train) for block in blocks])
    return distance, unlikeness.percentiles(distance, unlikeness.usual(train, seed))


def require_table(path: Path, data: Data) -> None:
    """Raise InputError unless a table can be written there, as far as that can be told beforehand."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--out: got {path.name!r}, expected a name that ends in {', '.join(SUFFIXES)}")
    places.require(path, data, "--out")


def write(path: Path, found: Answers) -> None:
    """Write the table as the path's suffix says, whole or not at all."""
    columns = found.columns()
    if path.suffix.lower() == ".csv":
        write_text(path, as_csv(columns))
    elif path.suffix.lower() == ".json":
        write_json(path, [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])
    else:
        with replacing(path) as temporary:
            pq.write_table(pa.table(columns), temporary, compression="zstd")


def as_csv(columns: dict[str, list[Any]]) -> str:
    """Return a table as CSV; numbers have all their digits, so that they read back as the same bits."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([str(cell).lower() if isinstance(cell, bool) else cell for cell in row])
    return text.getvalue()
