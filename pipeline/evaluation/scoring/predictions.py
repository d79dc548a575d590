"""Predictions of a head or a fine-tuned network for the validation and test images, and their file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import artifacts, stamps
from pipeline.core.atomic import replacing
from pipeline.core.errors import StateError
from pipeline.evaluation.scoring.ranks import LinearMetric

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


MOST_IN_MEMORY = 2**25
"""The most probabilities, N x K, in memory; of more, only `CondensedProbabilities`."""


@dataclass(frozen=True)
class FullProbabilities:
    """N x K probabilities in memory, and what metrics need of them."""

    truth: Ints
    probability: Floats
    ranks: Mapping[str, LinearMetric] = field(default_factory=dict)
    """Rank metrics in linear form, if resamples use that."""

    @cached_property
    def highest(self) -> Floats:
        """Return the probability of the most probable class, (N,)."""
        return np.asarray(self.probability.max(axis=1))

    @cached_property
    def likeliest(self) -> Ints:
        """Return the most probable class, (N,); the first of equals."""
        return np.asarray(self.probability.argmax(axis=1), dtype=np.int64)

    @cached_property
    def of_truth(self) -> Floats:
        """Return the probability of the true class, (N,)."""
        return np.asarray(self.probability[np.arange(len(self.truth)), self.truth])

    @cached_property
    def squared_error(self) -> Floats:
        """Return the squared distance to one for the true class and zero for the others, (N,)."""
        error = self.probability.copy()
        error[np.arange(len(error)), self.truth] -= 1
        return np.asarray((error**2).sum(axis=1))


@dataclass(frozen=True)
class CondensedProbabilities:
    """What metrics need of N x K probabilities that are too many for memory; fields as in `FullProbabilities`."""

    highest: Floats
    likeliest: Ints
    of_truth: Floats
    squared_error: Floats
    of_decision: Floats
    by_split: Mapping[str, Mapping[str, LinearMetric]]
    """split -> rank metrics of its images"""
    ranks: Mapping[str, LinearMetric] = field(default_factory=dict)
    """Rank metrics of these images, if they are one split."""
    blocks: Callable[[], Iterator[Floats]] | None = None
    """Reads all probabilities again, some rows at a time; None for the rows of one split."""

    def of(self, rows: Sequence[int], split: str) -> "CondensedProbabilities":
        """Return the rows of one split."""
        names = ("highest", "likeliest", "of_truth", "squared_error", "of_decision")
        parts = {name: getattr(self, name)[rows] for name in names}
        return replace(self, **parts, ranks=self.by_split.get(split, {}), blocks=None)


@dataclass(frozen=True)
class Predictions:
    """Predictions for N images of K classes, those of validation and test."""

    image_id: Sequence[str]
    split: Sequence[str]
    label: Sequence[str]
    classes: Sequence[str]
    """Sorted; the order of the columns of `probability`."""
    probability: Floats
    """(N, K); rows sum to one. (N, 0) if they are condensed."""
    decided: Ints | None = None
    """(N,) numbers of the decided classes, if a rule decides and not the highest probability; not in the file."""
    condensed: CondensedProbabilities | None = None

    @cached_property
    def probabilities(self) -> FullProbabilities | CondensedProbabilities:
        """The probabilities, full or condensed."""
        return self.condensed or FullProbabilities(self.truth(), self.probability)

    def of(self, split: str) -> "Predictions":
        """Return the rows of one split."""
        rows = [row for row, name in enumerate(self.split) if name == split]
        return Predictions(
            [self.image_id[row] for row in rows],
            [split] * len(rows),
            [self.label[row] for row in rows],
            self.classes,
            self.probability[rows],
            None if self.decided is None else self.decided[rows],
            self.condensed and self.condensed.of(rows, split),
        )

    def truth(self) -> Ints:
        """Return the true class of every row as an index into `classes`, (N,)."""
        index = {name: number for number, name in enumerate(self.classes)}
        return np.array([index[label] for label in self.label], dtype=np.int64)

    def decision(self) -> Ints:
        """Return the number of the class decided for every row, (N,): the most probable one, unless a rule decides."""
        if self.decided is not None:
            return self.decided
        return (
            self.condensed.likeliest if self.condensed else np.asarray(self.probability.argmax(axis=1), dtype=np.int64)
        )

    def of_decision(self) -> Floats:
        """Return the probability of the class decided for, (N,)."""
        return (
            self.condensed.of_decision
            if self.condensed
            else self.probability[np.arange(len(self.label)), self.decision()]
        )

    def right(self) -> npt.NDArray[np.bool_]:
        """Return whether the decision is the true class, for every row (N,)."""
        return np.asarray(self.decision() == self.truth())


path_of = artifacts.PREDICTIONS.at
"""Of a backbone's head or plan."""


def write(path: Path, predictions: Predictions) -> None:
    """Write predictions as Parquet: image_id, split, label, p_<class> ..."""
    columns: dict[str, Any] = {name: list(getattr(predictions, name)) for name in ("image_id", "split", "label")}
    for number, name in enumerate(predictions.classes):
        columns[f"p_{name}"] = predictions.probability[:, number]
    rows = max(1, min(MOST_IN_MEMORY // max(1, len(predictions.classes)), 2**20))  # of a group, which is read at once
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd", row_group_size=rows)


def read(path: Path, stamp: stamps.Stamp) -> Predictions:
    """Read predictions; StateError if their bytes differ from the stamp."""
    with stamps.checked(path, stamp) as stream:
        return parsed(path, pq.ParquetFile(stream).read())


def parsed(path: Path, table: pa.Table) -> Predictions:
    """Return the predictions in a table; StateError if a probability is not a number."""
    names = [name for name in table.column_names if name.startswith("p_")]
    probability = np.column_stack([table[name].to_numpy() for name in names]).astype(np.float64)
    if not np.isfinite(probability).all():
        raise StateError(f"{path}: holds probabilities that are not numbers; run `dvc repro --force`")
    return Predictions(
        table["image_id"].to_pylist(),
        table["split"].to_pylist(),
        table["label"].to_pylist(),
        [name.removeprefix("p_") for name in names],
        probability,
    )


def require_same_images(runs: Mapping[str, Predictions]) -> None:
    """Raise StateError unless all runs predict the same images, at least one, with equal labels."""
    (name, first), *others = runs.items()
    if not first.label:
        raise StateError(f"{name}: predictions on no test image at all; see `split` in params.yaml")
    for other_name, other in others:
        if _images_and_labels(other) != _images_and_labels(first):
            raise StateError(
                f"{name} and {other_name}: predictions on different test images ({len(first.image_id)} and "
                f"{len(other.image_id)}) or labels; a paired comparison needs the same ones; run `dvc repro`"
            )


def _images_and_labels(predictions: Predictions) -> tuple[list[str], list[str], list[str]]:
    return list(predictions.image_id), list(predictions.label), list(predictions.classes)
