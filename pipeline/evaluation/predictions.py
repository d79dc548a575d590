"""Predictions: what a head or a fine-tuned network says of the validation and test images, and its file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import stamps
from pipeline.atomic import replacing
from pipeline.errors import StateError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Predictions:
    """What a head or a fine-tuned network says of the validation and test images; N rows, K classes."""

    image_id: Sequence[str]
    split: Sequence[str]
    label: Sequence[str]
    classes: Sequence[str]
    """Sorted; the order of the columns of `probability`."""
    probability: Floats
    """(N, K); rows sum to one."""
    decided: Ints | None = None
    """(N,) classes by their number, where a rule decides that is not "the most probable one"; not in the file."""

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
        )

    def truth(self) -> Ints:
        """Return the true class of every row as an index into `classes`, (N,)."""
        index = {name: number for number, name in enumerate(self.classes)}
        return np.array([index[label] for label in self.label], dtype=np.int64)

    def decision(self) -> Ints:
        """Return the class decided for every row, (N,): by the rule, else the most probable, the first of equals."""
        if self.decided is not None:
            return self.decided
        return np.asarray(self.probability.argmax(axis=1), dtype=np.int64)

    def right(self) -> npt.NDArray[np.bool_]:
        """Return whether the decision is the true class, for every row (N,)."""
        return np.asarray(self.decision() == self.truth())


def path_of(backbone: str, run: str) -> Path:
    """Return where the predictions of a head or plan lie."""
    return Path("predictions") / backbone / f"{run}.parquet"


def write(path: Path, predictions: Predictions) -> None:
    """Write predictions as Parquet: image_id, split, label, p_<class> ..."""
    columns: dict[str, Any] = {name: list(getattr(predictions, name)) for name in ("image_id", "split", "label")}
    for number, name in enumerate(predictions.classes):
        columns[f"p_{name}"] = predictions.probability[:, number]
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")


def read(path: Path, stamp: stamps.Stamp) -> Predictions:
    """Read predictions whose bytes are the stamped ones; StateError otherwise."""
    table = pq.read_table(BytesIO(stamps.check(path, stamp)))
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
