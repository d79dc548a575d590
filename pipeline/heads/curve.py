"""Heads on parts of the training images: their share of the label-efficiency curve."""

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
from pipeline.evaluation.curves import Curve, Point, Trained
from pipeline.heads import entries, fitting, inputs, predicting
from pipeline.heads.inputs import Inputs, of_images
from pipeline.heads.metering import metered
from pipeline.heads.rows import Rows, packed, unpacked


@dataclass(frozen=True)
class _Known:
    """What all trainings share."""

    rows: Rows
    """All images, and their further views."""
    validation: Rows
    test: Rows
    selection: Selection


@dataclass(frozen=True)
class _Training:
    """A head and the part of the images that it learns from."""

    head: str
    entry: HeadEntry
    images: bytes
    """Packed."""
    seed: int


def check(heads: Mapping[str, HeadEntry]) -> list[str]:
    """Return what is wrong with the heads of the curve, one line each."""
    return [_in_curve(problem) for name, entry in heads.items() for problem in entries.check(name, entry)]


def read(params: Params, backbone: str) -> Inputs:
    """Read what the curve's heads learn from; InputError if an entry is not valid, other errors as `inputs.read`."""
    heads = params.curve.heads
    if problems := check(heads):
        raise InputError(*problems)
    return inputs.read(params, backbone, streams=any(entries.streams(name, entry) for name, entry in heads.items()))


def subsets(params: Params, given: Inputs) -> list[Subset]:
    """Draw parts of the training images; of each class they hold enough for the folds that some heads need."""
    targets = np.unique(given.images.y, return_inverse=True)[1].astype(np.int64)
    contents = [given.table.sha256[row] for row in given.row]
    groups = given.images.group.tolist()
    return draw(given.train, targets, contents, groups, params.curve, params.seed, params.selection.folds)


def curve(params: Params, given: Inputs, trained: Trained) -> Curve:
    """Return the trainings with the images of validation and test that they were judged on."""
    judged = np.concatenate([given.val, given.test])
    rows = given.row[judged].tolist()
    return Curve(
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
    params: Params, given: Inputs, subsets: Sequence[Subset], cluster: Cluster, progress: Callable[[str], object]
) -> Trained:
    """Fit every head on every subset, choosing its settings as its entry says.

    It is never refitted on validation images, for these would be labels that the subset does not have.

    Args:
        params: with the heads.
        given: all images.
        subsets: of the training images.
        cluster: where the trainings run, each a task of its own.
        progress: is told the head of each training that is done.

    Returns:
        What each head decides, in the order of heads and subsets. A head whose settings were refused on some subset
        has no points.

    Raises:
        InputError: if a training ends for another reason.

    """
    heads, images = params.curve.heads, given.images
    selection = params.selection.model_copy(update={"repeats": 0})
    known = _Known(given.with_views(), images[given.val], images[given.test], selection)
    tasks = [
        _Training(head, entry, packed(subset.rows), subset.seed) for head, entry in heads.items() for subset in subsets
    ]
    found, costs, failed = list[Point](), {head: Cost() for head in heads}, dict[str, str]()
    for task, done in zip(tasks, metered(cluster, partial(_point, known), tasks), strict=True):
        if isinstance(done.result, Point):
            found.append(done.result)
        else:
            failed.setdefault(task.head, done.result)
        costs[task.head] += done.cost
        progress(task.head)
    return Trained([point for point in found if point.run not in failed], costs, failed)


def _point(known: _Known, task: _Training) -> Point | str:
    """Return what a head decides, or why its settings were refused."""
    images = unpacked(task.images)
    rows = of_images(known.rows, images)
    try:
        chosen = fitting.fit(task.head, task.entry, rows, known.validation, known.selection, task.seed, refit=False)
        tested = predicting.predict(chosen.model, known.test.X)
    except InputError as error:
        where = f"with {len(images)} training images"
        problems = [f"{_in_curve(problem)} ({where})" for problem in error.problems]
        if isinstance(error, RefusedError):
            return RefusedError(*problems).reason
        raise InputError(*problems) from error
    decided = np.concatenate([chosen.validation, tested]).argmax(axis=1)
    return Point(task.head, len(images), task.seed, decided)


def _in_curve(problem: str) -> str:
    return problem.replace("params.yaml: heads.", "params.yaml: curve.heads.", 1)
