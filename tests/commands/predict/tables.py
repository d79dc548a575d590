"""Read the tables that `headswap predict` writes, and what the runs themselves predicted."""

import json
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline import heads
from pipeline.commands import predict
from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.evaluation import runs
from pipeline.evaluation.scoring.predictions import Predictions
from tests.conftest import CLASSES

TOLERANCE = 2e-3
"""Between a plan's stored predictions, whose frozen part was kept in half precision, and the whole network's."""


def table(path: str) -> dict[str, list]:
    return {
        ".parquet": lambda: pq.read_table(path).to_pydict(),
        ".csv": lambda: pyarrow.csv.read_csv(path).to_pydict(),
        ".json": lambda: {name: [row[name] for row in json.loads(Path(path).read_text())] for name in columns()},
    }[Path(path).suffix]()


def columns() -> list[str]:
    return ["path", "label", *(f"p_{name}" for name in CLASSES), "distance", "percentile", "unlike"]


def predicted(params: Params, model: str, *paths: str) -> dict[str, list]:
    predict.main(params, model, list(paths), out="out.parquet")
    return table("out.parquet")


def stored(name: str) -> tuple[list[str], Predictions]:
    """Return the paths of the test images, and what the run said of them."""
    found = runs.read("tiny", name).predictions.of("test")
    listed = manifest.read()
    return [listed.path[listed.row_of()[image_id]] for image_id in found.image_id], found


def probabilities(found: dict[str, list]) -> np.ndarray:
    return np.column_stack([found[f"p_{name}"] for name in CLASSES])


def same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=heads.PREDICTION_TOLERANCE)
