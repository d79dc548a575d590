"""Reading predictions with too many probabilities for memory: column by column, once."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import stamps
from pipeline.core.errors import StateError
from pipeline.evaluation.scoring import predictions
from pipeline.evaluation.scoring.predictions import MOST_IN_MEMORY, CondensedProbabilities, Floats, Ints, Predictions
from pipeline.evaluation.scoring.ranks import Ranking

COLUMNS = 32
"""Classes that are read at a time."""


def read(path: Path, stamp: stamps.Stamp) -> Predictions:
    """Read predictions, condensed if they are many; StateError if their bytes differ from the stamp."""
    with stamps.checked(path, stamp) as stream:
        file = pq.ParquetFile(stream)
        names = [name for name in file.schema_arrow.names if name.startswith("p_")]
        if len(names) <= 2 or file.metadata.num_rows * len(names) <= MOST_IN_MEMORY:
            return predictions.parsed(path, file.read())
        return _condensed(path, stamp, file, names)


def _condensed(path: Path, stamp: stamps.Stamp, file: pq.ParquetFile, names: Sequence[str]) -> Predictions:
    table = file.read(columns=["image_id", "split", "label"])
    image_id, split, label = (table[name].to_pylist() for name in ("image_id", "split", "label"))
    classes = [name.removeprefix("p_") for name in names]
    one = Predictions(image_id, split, label, classes, np.empty((len(label), 0)))
    sums = _Sums(one.truth(), split, len(classes))
    for number, column in enumerate(_columns(file, names)):
        if not np.isfinite(column).all():
            raise StateError(f"{path}: holds probabilities that are not numbers; run `dvc repro --force`")
        sums.add(number, column)

    def blocks() -> Iterator[Floats]:
        with stamps.checked(path, stamp) as stream:
            again = pq.ParquetFile(stream)
            for group in range(again.num_row_groups):
                yield _matrix(again.read_row_group(group, columns=names))

    condensed = CondensedProbabilities(
        highest=sums.highest,
        likeliest=sums.likeliest,
        of_truth=sums.of_truth,
        squared_error=sums.squared_error,
        of_decision=sums.highest,
        by_split={name: ranking.result() for name, (_, ranking) in sums.rankings.items()},
        blocks=blocks,
    )
    return Predictions(image_id, split, label, classes, one.probability, condensed=condensed)


class _Sums:
    """Computes the fields of `CondensedProbabilities` for N rows, class by class."""

    def __init__(self, truth: Ints, split: Sequence[str], classes: int) -> None:
        self._truth = truth
        self.highest, self.likeliest = np.full(len(truth), -np.inf), np.zeros(len(truth), np.int64)
        self.of_truth, self.squared_error = np.zeros(len(truth)), np.zeros(len(truth))
        which = np.asarray(split)
        rows = {name: np.flatnonzero(which == name) for name in dict.fromkeys(split)}
        self.rankings = {name: (some, Ranking(truth[some], classes)) for name, some in rows.items()}

    def add(self, number: int, column: Floats) -> None:
        """Add the probabilities of a class, (N,)."""
        mine = self._truth == number
        higher = column > self.highest  # the first of equals stays
        np.copyto(self.highest, column, where=higher)
        np.copyto(self.likeliest, number, where=higher)
        np.copyto(self.of_truth, column, where=mine)
        self.squared_error += (column - mine) ** 2
        for rows, ranking in self.rankings.values():
            ranking.add(number, column[rows])


def _columns(file: pq.ParquetFile, names: Sequence[str]) -> Iterator[Floats]:
    for start in range(0, len(names), COLUMNS):
        some = list(names[start : start + COLUMNS])
        table = file.read(columns=some)
        yield from (table[name].to_numpy().astype(np.float64) for name in some)


def _matrix(table: pa.Table) -> Floats:
    return np.column_stack([column.to_numpy() for column in table.columns]).astype(np.float64)
