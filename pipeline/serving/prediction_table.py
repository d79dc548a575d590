"""The predictions of a trained run for new images, as a table in CSV, JSON or Parquet."""

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
from pipeline.serving import output_path
from pipeline.serving.new_images import NewImages
from pipeline.serving.trained_model import TrainedModel

SUFFIXES = (".csv", ".json", ".parquet")
_BLOCK = 4096
"""Images whose distances are computed at a time: bounds the memory that their embeddings take."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PredictionTable:
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


def predict(new: NewImages, model: TrainedModel, params: Params) -> PredictionTable:
    """Classify images, and compute how unlike the training images each is; StateError as `forward.probabilities`."""
    if model.network is None:
        probability = heads.predict(model.head, new.features)
    else:
        from pipeline.serving import forward  # noqa: PLC0415  # a scikit-learn head needs no torch

        probability = forward.probabilities(model.network, new.paths, new.sha256, params.embed)
    paths = [path.as_posix() for path in new.paths]
    predicted = Predictions(paths, [""] * len(paths), [""] * len(paths), model.classes, probability)
    decided = (model.rule.apply(predicted) if model.rule else predicted).decision()
    distance, percentile = _unlikeness(new, model, params.seed)
    labels = [model.classes[number] for number in decided]
    return PredictionTable(paths, labels, model.classes, probability, distance, percentile)


def _unlikeness(new: NewImages, model: TrainedModel, seed: int) -> tuple[Floats, Floats]:
    train = neighbours.of_length_one(model.training_features())
    starts = range(0, len(new.features), _BLOCK)
    blocks = (neighbours.of_length_one(new.features[start : start + _BLOCK]) for start in starts)
    distance = np.concatenate([unlikeness.distances(block, train) for block in blocks])
    return distance, unlikeness.percentiles(distance, unlikeness.usual(train, seed))


def require_table(path: Path, data: Data) -> None:
    """Raise InputError unless a table can be written there, as far as that is known beforehand."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--out: got {path.name!r}, expected a name that ends in {', '.join(SUFFIXES)}")
    output_path.require(path, data, "--out")


def write(path: Path, table: PredictionTable) -> None:
    """Write the table in the format of the path's suffix, whole or not at all."""
    columns = table.columns()
    if path.suffix.lower() == ".csv":
        write_text(path, as_csv(columns))
    elif path.suffix.lower() == ".json":
        write_json(path, [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])
    else:
        with replacing(path) as temporary:
            pq.write_table(pa.table(columns), temporary, compression="zstd")


def as_csv(columns: dict[str, list[Any]]) -> str:
    """Return a table as CSV, with all digits of a number, so that it reads back bit for bit."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([str(cell).lower() if isinstance(cell, bool) else cell for cell in row])
    return text.getvalue()
