"""The heads' part of the label-efficiency curve: heads trained on parts of the training images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.cluster import Cluster
from pipeline.core.cost import Cost
from pipeline.core.errors import InputError, RefusedError
from pipeline.core.params import Params
from pipeline.core.sections import HeadEntry, Selection
from pipeline.data.splits.subsets import Subset, draw
from pipeline.evaluation.curves import CurveDecisions, CurveTrainings, Point
from pipeline.heads import entries, fitting, inputs, predicting
from pipeline.heads.inputs import HeadInputs, of_images
from pipeline.heads.metering import map_metered
from pipeline.heads.rows import Rows, packed, unpacked


@dataclass(frozen=True)
class _SharedData:
    """What all trainings use."""

    rows: Rows
    """All images, then their further views."""
    validation: Rows
    test: Rows
    selection: Selection


@dataclass(frozen=True)
class _Training:
    """A head and the images that it is trained on."""

    head: str
    entry: HeadEntry
    images: bytes
    """Their numbers, as `rows.packed` returns them."""
    seed: int


def check(heads: Mapping[str, HeadEntry]) -> list[str]:
    """Return what is wrong with the heads of the curve, one line per problem."""
    return [_in_curve(problem) for name, entry in heads.items() for problem in entries.check(name, entry)]


def read(params: Params, backbone: str) -> HeadInputs:
    """Read the input of the curve's heads; InputError if an entry is not valid, other errors as `inputs.read`."""
    heads = params.curve.heads
    if problems := check(heads):
        raise InputError(*problems)
    return inputs.read(params, backbone, streams=any(entries.streams(name, entry) for name, entry in heads.items()))


def subsets(params: Params, given: HeadInputs) -> list[Subset]:
    """Draw parts of the training images, each with enough images of every class for the folds of heads."""
    targets = np.unique(given.images.y, return_inverse=True)[1].astype(np.int64)
    contents = [given.table.sha256[row] for row in given.row]
    groups = given.images.group.tolist()
    return draw(given.train, targets, contents, groups, params.curve, params.seed, params.selection.folds)


def curve(params: Params, given: HeadInputs, trained: CurveTrainings) -> CurveDecisions:
    """Return the trainings together with the images of validation and test."""
    judged = np.concatenate([given.val, given.test])
    rows = given.row[judged].tolist()
    return CurveDecisions(
        image_id=[given.table.image_id[row] for row in rows],
        split=[given.table.split[row] for row in rows],
        label=given.images.y[judged].tolist(),
        classes=given.table.classes,
        kinds=dict.fromkeys(params.curve.heads, "head") | dict.fromkeys(params.curve.plans, "plan"),
        points=trained.points,
        costs=trained.costs,
        failed=trained.failed,
    )


def train(
    params: Params, given: HeadInputs, subsets: Sequence[Subset], cluster: Cluster, progress: Callable[[str], object]
) -> CurveTrainings:
    """Fit every head on every subset, and choose its settings as its entry says.

    No head is refitted on validation images: that would add labels which the subset does not have.

    Each training is a task for the cluster; after it, `progress` is called with the name of the head.

    Returns:
        The decisions of each head, in the order of heads and subsets. A head whose settings were refused on some subset
        has no points.

    Raises:
        InputError: if a training fails for another reason.

    """
    heads, images = params.curve.heads, given.images
    selection = params.selection.model_copy(update={"repeats": 0})
    shared = _SharedData(given.with_views(), images[given.val], images[given.test], selection)
    tasks = [
        _Training(head, entry, packed(subset.rows), subset.seed) for head, entry in heads.items() for subset in subsets
    ]
    found, costs, failed = list[Point](), {head: Cost() for head in heads}, dict[str, str]()
    for task, done in zip(tasks, map_metered(cluster, partial(_point, shared), tasks), strict=True):
        if isinstance(done.result, Point):
            found.append(done.result)
        else:
            failed.setdefault(task.head, done.result)
        costs[task.head] += done.cost
        progress(task.head)
    return CurveTrainings([point for point in found if point.run not in failed], costs, failed)


def _point(shared: _SharedData, task: _Training) -> Point | str:
    """Return the decisions of a head, or the reason why its settings were refused."""
    images = unpacked(task.images)
    rows = of_images(shared.rows, images)
    try:
        fitted = fitting.fit(task.head, task.entry, rows, shared.validation, shared.selection, task.seed, refit=False)
        tested = predicting.predict(fitted.model, shared.test.X)
    except InputError as error:
        where = f"with {len(images)} training images"
        problems = [f"{_in_curve(problem)} ({where})" for problem in error.problems]
        if isinstance(error, RefusedError):
            return RefusedError(*problems).reason
        raise InputError(*problems) from error
    decided = np.concatenate([fitted.validation, tested]).argmax(axis=1)
    return Point(task.head, len(images), task.seed, decided)


def _in_curve(problem: str) -> str:
    return problem.replace("params.yaml: heads.", "params.yaml: curve.heads.", 1)
