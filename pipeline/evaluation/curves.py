"""The decisions of heads and plans trained on parts of the training images, and their file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import artifacts, stamps
from pipeline.core.atomic import replacing
from pipeline.core.cost import Cost

Ints = npt.NDArray[np.int64]
_MUCH_MORE = 1.5
"""Times the fraction asked for: rounding up by class alone takes a few images more."""


@dataclass(frozen=True)
class Point:
    """One training on a part of the labels."""

    run: str
    """The head's or plan's name."""
    labels: int
    """Training images."""
    seed: int
    """Of the drawing: the parts of one seed are nested, and points of one seed and size share their training images."""
    decided: Ints
    """(N,) the number of the class decided for every image."""


@dataclass(frozen=True)
class CurveTrainings:
    """The results of heads or plans trained on parts of the labels."""

    points: Sequence[Point]
    costs: Mapping[str, Cost]
    """run -> cost of all its trainings."""
    failed: Mapping[str, str]
    """run -> why its settings were refused; such a run has no points."""

    def __add__(self, other: "CurveTrainings") -> "CurveTrainings":
        """Return these results, then the others."""
        return CurveTrainings(
            [*self.points, *other.points], {**self.costs, **other.costs}, {**self.failed, **other.failed}
        )


@dataclass(frozen=True)
class CurveDecisions:
    """All trainings of one backbone, with their decisions on the same N images of validation and test."""

    image_id: Sequence[str]
    split: Sequence[str]
    label: Sequence[str]
    classes: Sequence[str]
    """Sorted; decisions are indices into it."""
    kinds: Mapping[str, str]
    """run -> "head" or "plan", in the order of the points."""
    points: Sequence[Point]
    costs: Mapping[str, Cost]
    """run -> cost of all its trainings; embeddings and stored rows of the frozen part are not counted."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """run -> why its settings were refused; such a run has no points."""


def unlike_fractions(labels: Sequence[int], fractions: Sequence[float], at_least: int) -> str:
    """Say that the parts are not the fractions asked for, because each holds some images of every class; or nothing.

    Args:
        labels: images of each part, ascending.
        fractions: what was asked for, ascending.
        at_least: images of each class in every part.

    """
    smallest = fractions[-1] * labels[0] / labels[-1]
    if len(labels) == len(fractions) and smallest < _MUCH_MORE * fractions[0]:
        return ""
    return (
        f"{len(labels)} of {len(fractions)} fractions, the smallest {smallest:.0%} of the training images instead of "
        f"{fractions[0]:.0%}, because every part holds at least {at_least} images of each class"
    )


path_of, stamp_path = artifacts.CURVE.at, artifacts.CURVE.stamp_at
"""Of a backbone."""


def write(backbone: str, curve: CurveDecisions, inputs: Mapping[str, str]) -> None:
    """Write a curve and its stamp: a row per image, and a column <run>/<labels>/<seed> per point."""
    path = path_of(backbone)
    columns: dict[str, pa.Array] = {name: pa.array(getattr(curve, name)) for name in ("image_id", "split", "label")}
    for point in curve.points:
        columns[f"{point.run}/{point.labels}/{point.seed}"] = pa.array(point.decided, pa.int32())
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")
    facts = {
        "classes": list(curve.classes),
        "kinds": dict(curve.kinds),
        "costs": {run: asdict(cost) for run, cost in curve.costs.items()},
        "failed": dict(curve.failed),
    }
    stamps.write(stamp_path(backbone), stamps.Stamp(f"curve@{backbone}", stamps.hashes([path]), inputs, facts))


def read(backbone: str) -> CurveDecisions:
    """Read a curve; StateError if its bytes differ from the stamp."""
    path, stamp = path_of(backbone), stamps.read(stamp_path(backbone))
    table = pq.read_table(BytesIO(stamps.check(path, stamp)))
    points = []
    for column in table.column_names[3:]:
        run, labels, seed = column.split("/")
        points.append(Point(run, int(labels), int(seed), table[column].to_numpy().astype(np.int64)))
    plain = {name: table[name].to_pylist() for name in ("image_id", "split", "label")}
    with stamps.requiring_facts(stamp_path(backbone)):
        costs = {run: Cost(**cost) for run, cost in stamp.facts["costs"].items()}
        kinds = {point.run: stamp.facts["kinds"][point.run] for point in points}
        classes, failed = stamp.facts["classes"], stamp.facts["failed"]
        return CurveDecisions(**plain, classes=classes, kinds=kinds, points=points, costs=costs, failed=failed)
