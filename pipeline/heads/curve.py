"""Heads on parts of the training images: their share of the label-efficiency curve."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.cost import Cost, measured
from pipeline.errors import InputError
from pipeline.evaluation.curves import Point
from pipeline.heads import entries, fitting
from pipeline.heads.inputs import Inputs
from pipeline.params import HeadEntry, Params
from pipeline.subsets import Subset


def check(heads: Mapping[str, HeadEntry]) -> list[str]:
    """Return what is wrong with the heads of the curve, one line each."""
    return [_in_curve(problem) for name, entry in heads.items() for problem in entries.check(name, entry)]


def points(
    params: Params, head: str, given: Inputs, subsets: Sequence[Subset], progress: Callable[[], object]
) -> tuple[list[Point], Cost]:
    """Fit a head on every subset, choosing its settings as its entry says; return its decisions and what they took.

    It is never refitted on validation images, for these would be labels that the subset does not have.

    Raises:
        InputError: if the head refuses a subset.

    """
    entry, selection = params.curve.heads[head], params.selection.model_copy(update={"repeats": 0})
    images, found = given.images, []
    with measured() as cost:
        for subset in subsets:
            rows = given.to_train_on(subset.rows)
            try:
                chosen = fitting.fit(head, entry, rows, images[given.val], selection, subset.seed, refit=False)
                tested = fitting.predict(chosen.model, images[given.test].X)
            except InputError as error:
                where = f"with {len(subset.rows)} training images"
                raise InputError(*(f"{_in_curve(problem)} ({where})" for problem in error.problems)) from error
            decided = np.concatenate([chosen.validation, tested]).argmax(axis=1)
            found.append(Point(head, len(subset.rows), subset.seed, decided))
            progress()
    return found, cost


def _in_curve(problem: str) -> str:
    return problem.replace("params.yaml: heads.", "params.yaml: curve.heads.", 1)
