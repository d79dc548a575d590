"""Predictions: what a head or a fine-tuned network says of the validation and test images, and its file."""

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
from pipeline.evaluation.scoring.ranks import Ranked

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


HELD = 2**25
"""Probabilities, N x K, that are held in memory as they are; of more only what `Kept` has."""


@dataclass(frozen=True)
class Held:
    """What metrics ask of N x K probabilities."""

    truth: Ints
    probability: Floats
    ranks: Mapping[str, Ranked] = field(default_factory=dict)
    """Rank metrics, where they are taken as linear on resamples."""

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
class Kept:
    """What is kept of N x K probabilities that are too many to hold; the names mean what they mean in `Held`."""

    highest: Floats
    likeliest: Ints
    of_truth: Floats
    squared_error: Floats
    of_decision: Floats
    by_split: Mapping[str, Mapping[str, Ranked]]
    """split -> rank metrics of its images"""
    ranks: Mapping[str, Ranked] = field(default_factory=dict)
    """Of these images, where they are one split."""
    blocks: Callable[[], Iterator[Floats]] | None = None
    """Reads all probabilities again, some rows at a time."""

    def of(self, rows: Sequence[int], split: str) -> "Kept":
        """Return what is kept of the rows of one split."""
        names = ("highest", "likeliest", "of_truth", "squared_error", "of_decision")
        parts = {name: getattr(self, name)[rows] for name in names}
        return replace(self, **parts, ranks=self.by_split.get(split, {}), blocks=None)


@dataclass(frozen=True)
class Predictions:
    """What a head or a fine-tuned network says of the validation and test images; N rows, K classes."""

    image_id: Sequence[str]
    split: Sequence[str]
    label: Sequence[str]
    classes: Sequence[str]
    """Sorted; the order of the columns of `probability`."""
    probability: Floats
    """(N, K); rows sum to one. (N, 0) where `kept` has what is left of them."""
    decided: Ints | None = None
    """(N,) classes by their number, where a rule decides that is not "the most probable one"; not in the file."""
    kept: Kept | None = None

    @cached_property
    def said(self) -> Held | Kept:
        """What metrics ask of the probabilities."""
        return self.kept or Held(self.truth(), self.probability)

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
            self.kept and self.kept.of(rows, split),
        )

    def truth(self) -> Ints:
        """Return the true class of every row as an index into `classes`, (N,)."""
        index = {name: number for number, name in enumerate(self.classes)}
        return np.array([index[label] for label in self.label], dtype=np.int64)

    def decision(self) -> Ints:
        """Return the class decided for every row, (N,): by the rule, else the most probable, the first of equals."""
        if self.decided is not None:
            return self.decided
        return self.kept.likeliest if self.kept else np.asarray(self.probability.argmax(axis=1), dtype=np.int64)

    def of_decision(self) -> Floats:
        """Return the probability of the class decided for, (N,)."""
        return self.kept.of_decision if self.kept else self.probability[np.arange(len(self.label)), self.decision()]

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
    rows = max(1, min(HELD // max(1, len(predictions.classes)), 2**20))  # of a group, which is read at once
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd", row_group_size=rows)


def read(path: Path, stamp: stamps.Stamp) -> Predictions:
    """Read predictions whose bytes are the stamped ones; StateError otherwise."""
    with stamps.checked(path, stamp) as stream:
        return parsed(path, pq.ParquetFile(stream).read())


def parsed(path: Path, table: pa.Table) -> Predictions:
    """Return the content of a file of predictions; StateError if it holds what is no number."""
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
    """Raise StateError, naming two, unless all runs predict the same images, at least one, with equal labels."""
    (name, first), *others = runs.items()
    if not first.label:
        raise StateError(f"{name}: predictions on no test image at all; see `split` in params.yaml")
    for other_name, other in others:
        if _judged(other) != _judged(first):
            raise StateError(
                f"{name} and {other_name}: predictions on different test images ({len(first.image_id)} and "
                f"{len(other.image_id)}) or labels; a paired comparison needs the same ones; run `dvc repro`"
            )


def _judged(predictions: Predictions) -> tuple[list[str], list[str], list[str]]:
    return list(predictions.image_id), list(predictions.label), list(predictions.classes)
