"""Hyper-parameter search: the scores of the candidates, and the choice among them.

scikit-learn's own searches know neither views of an image nor a path over C; the folds are scikit-learn's. The fits of
a path on one fold are a task for a cluster. A task carries its classifiers and its row numbers; all tasks share a
reference to the features.
"""

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.cluster import Cluster
from pipeline.data.splits import folds
from pipeline.data.splits.folds import Fold
from pipeline.evaluation.scoring import metrics
from pipeline.evaluation.scoring.outcomes import Outcomes
from pipeline.evaluation.scoring.predictions import Ints
from pipeline.heads.rows import Rows, packed, unpacked
from pipeline.heads.training import fit_classifier
from pipeline.heads.types import Classifier

UnfittedHead = tuple[Mapping[str, Any], Classifier]
"""Settings, and an unfitted classifier with these settings."""

Order = Callable[[Mapping[str, Any]], Any]
"""Settings -> a key that sorts simple settings before complex ones."""

BLOCKS = 200
"""The most parts of the scored rows that the jackknife of a standard error leaves out in turn."""

CaughtWarning = tuple[str, type[Warning]]
"""Text and category."""

HALVING_FACTOR = 3
"""In each round of halving, one in so many candidates goes on, with so many times the rows."""


@dataclass(frozen=True)
class Candidate:
    """One combination of settings and its score on each fold; no scores if it was the only combination."""

    params: Mapping[str, Any]
    scores: tuple[float, ...] = ()
    rows: int | None = None
    """Training rows of a fold, if the search did not use all."""
    spread: float | None = None
    """Standard error of a single score, over images, or over groups where there are some."""

    @property
    def mean(self) -> float:
        """The mean score over the folds."""
        return float(np.mean(self.scores)) if self.scores else float("nan")

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        if self.spread is not None:
            return self.spread
        return float(np.std(self.scores, ddof=1) / len(self.scores) ** 0.5) if len(self.scores) > 1 else 0.0


@dataclass(frozen=True)
class Scoring:
    """How candidates are fitted and scored."""

    rows: Rows
    folds: Sequence[Fold]
    metric: str
    probabilities: Callable[[Classifier, Rows], npt.NDArray[np.float64]]
    """Fitted classifier, rows -> the probabilities that the final head would give. It is sent to other processes."""
    progress: Callable[[int], object]
    """Called with the number of fits that have just ended."""
    cluster: Cluster
    """Where the fits run."""


def folds_of(rows: Rows, number: int, seed: int) -> list[Fold]:
    """Divide the rows into folds that keep images and groups whole, as `folds.deal`."""
    return folds.deal(rows.y, rows.origin, number, seed)


def best_of(candidates: Sequence[Candidate], order: Order) -> int:
    """Return the number of the simplest candidate within one standard error of the best (Breiman et al. 1984, 3.4.3).

    Only candidates that were scored on all rows count. Of equally simple ones the first wins.
    """
    whole = [number for number, candidate in enumerate(candidates) if candidate.rows is None]
    best = max((candidates[number] for number in whole), key=lambda one: one.mean)
    near = [number for number in whole if candidates[number].mean >= best.mean - best.error - 1e-12]
    if not near:  # a single candidate has no score
        return whole[0]
    return min(near, key=lambda number: (order(candidates[number].params), number))


def score_table(models: Sequence[UnfittedHead], scoring: Scoring, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Fit every candidate on every fold and return its scores by the named metrics: (candidates, folds, metrics)."""
    table = np.empty((len(models), len(scoring.folds), len(names)))
    for number, place, decided in _decisions(models, scoring):
        truth, classes = _true_classes(scoring.rows, scoring.folds[place])
        table[number, place] = [metrics.value(name, truth, decided, classes) for name in names]
    return table


def grid(models: Sequence[UnfittedHead], scoring: Scoring) -> list[Candidate]:
    """Score every candidate on every fold."""
    found: list[list[tuple[float, float | None]]] = [[] for _ in models]
    for number, place, decided in _decisions(models, scoring):
        fold, spread = scoring.folds[place], None
        truth, classes = _true_classes(scoring.rows, fold)
        if len(scoring.folds) == 1:
            unit = scoring.rows.origin[fold.judged, 1]
            spread = standard_error(scoring.metric, truth, decided, classes, unit)
        found[number].append((metrics.value(scoring.metric, truth, decided, classes), spread))
    return [
        Candidate(settings, tuple(score for score, _ in scores), spread=scores[0][1])
        for (settings, _), scores in zip(models, found, strict=True)
    ]


def standard_error(metric: str, truth: Ints, decided: Ints, classes: int, unit: Ints) -> float:
    """Return the standard error of a metric of N decisions, by the jackknife (Efron & Tibshirani 1993, ch. 11).

    The units (N,), images or groups, are left out in turn: one by one, or in at most BLOCKS parts.
    """
    _, number = np.unique(unit, return_inverse=True)
    parts = min(BLOCKS, int(number.max()) + 1)
    part = np.random.default_rng(0).permutation(int(number.max()) + 1)[number] % parts
    judged = Outcomes(truth, decided, classes)
    left = np.concatenate([
        metrics.METRICS[metric]((part != np.arange(start, min(start + 8, parts))[:, None]).astype(np.float64), judged)
        for start in range(0, parts, 8)
    ])  # fmt: skip
    return float(np.sqrt((parts - 1) / parts * ((left - left.mean()) ** 2).sum())) if parts > 1 else 0.0


def halving(models: Sequence[UnfittedHead], scoring: Scoring, begin: int, seed: int) -> list[Candidate]:
    """Score `begin` random candidates on few rows, then the best third on three times as many, until all rows are used.

    Successive halving (Jamieson & Talwalkar 2016), as in scikit-learn's HalvingRandomSearchCV.
    """
    rows, generator = scoring.rows, np.random.default_rng(seed)
    left = sorted(generator.permutation(len(models))[:begin].tolist())
    order = generator.permutation(len(rows.y))
    done = []
    sizes = halving_sizes(len(left))
    for round_, next_size in enumerate([*sizes[1:], 0]):
        share = HALVING_FACTOR ** (round_ + 1 - len(sizes))
        parts = [_smaller_fold(fold, rows, order, share) for fold in scoring.folds]
        judged = grid([models[number] for number in left], replace(scoring, folds=parts))
        ranked = sorted(range(len(left)), key=lambda place: (-judged[place].mean, place))
        used = len(parts[0].train) if next_size else None
        done += [replace(judged[place], rows=used) for place in sorted(ranked[next_size:])]
        left = sorted(left[place] for place in ranked[:next_size])
    return done


def halving_sizes(begin: int) -> list[int]:
    """Return the number of candidates in each round of halving; the last has at most HALVING_FACTOR.

    >>> halving_sizes(32)
    [32, 11, 4, 2]
    """
    sizes = [begin]
    while sizes[-1] > HALVING_FACTOR:
        sizes.append(-(-sizes[-1] // HALVING_FACTOR))
    return sizes


def _smaller_fold(fold: Fold, rows: Rows, order: Ints, share: float) -> Fold:
    """Keep a share of the training images of a fold, with all their views, and at least two groups of each class."""
    _, first, image_of = np.unique(rows.image, return_index=True, return_inverse=True)
    group_of = rows.origin[first, 1]
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    kept = []
    for name in np.unique(rows.y[fold.train]):
        images = np.unique(image_of[fold.train[rows.y[fold.train] == name]])
        images = images[np.argsort(rank[images])]
        kept.append(images[: max(2, round(share * len(images)))])
        # Heads that cross-validate within themselves need a second group.
        kept.append(images[group_of[images] != group_of[images[0]]][:1])
    return replace(fold, train=fold.train[np.isin(image_of[fold.train], np.concatenate(kept))])


def _paths(models: Sequence[UnfittedHead]) -> list[list[int]]:
    """Group the candidates that differ in C alone, if their classifier can fit all its values together."""
    groups: dict[str, list[int]] = {}
    for number, (settings, model) in enumerate(models):
        can = hasattr(model, "steps") and hasattr(model[-1], "path")
        shared = {key: value for key, value in settings.items() if key != "C"} if can else number
        groups.setdefault(repr(shared), []).append(number)
    return list(groups.values())


@dataclass(frozen=True)
class _Task:
    """One model, or several that form a path over C, and the packed rows of one fold."""

    models: Sequence[Classifier]
    train: bytes
    judged: bytes


def _decisions(models: Sequence[UnfittedHead], scoring: Scoring) -> Iterator[tuple[int, int, Ints]]:
    """Fit every candidate on every fold; yield its number, the fold's number, and the class of each scored row."""
    packs = [(packed(fold.train), packed(fold.judged)) for fold in scoring.folds]
    jobs = list(itertools.product(_paths(models), range(len(packs))))
    tasks = [_Task([models[number][1] for number in path], *packs[fold]) for path, fold in jobs]
    results = scoring.cluster.map(partial(_run_task, scoring.rows, scoring.probabilities), tasks)
    for (path, fold), (found, warned) in zip(jobs, results, strict=True):
        for text, category in warned:
            warnings.warn(text, category, stacklevel=2)
        scoring.progress(len(path))
        for number, decided in zip(path, found, strict=True):
            yield number, fold, decided


def _true_classes(rows: Rows, fold: Fold) -> tuple[Ints, int]:
    classes, number = np.unique(rows.y, return_inverse=True)
    return number[fold.judged], len(classes)


def _run_task(
    rows: Rows, probabilities: Callable[[Classifier, Rows], npt.NDArray[np.float64]], task: _Task
) -> tuple[list[Ints], list[CaughtWarning]]:
    """Return the decisions of a task's models, and the warnings, which would otherwise stay with the worker."""
    train, judged = rows[unpacked(task.train)], rows[unpacked(task.judged)]
    classes = np.unique(rows.y)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decided = [
            np.searchsorted(classes, model.classes_)[probabilities(model, judged).argmax(axis=1)]
            for model in _fit_models(task.models, train)
        ]
    return decided, [(str(one.message), one.category) for one in caught]


def _fit_models(models: Sequence[Classifier], train: Rows) -> Iterator[Classifier]:
    """Yield fitted models; those of a path over C are fitted together."""
    from sklearn.base import clone  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    first = clone(models[0])
    if len(models) == 1:
        yield fit_classifier(first, train.X, train.y, train.origin)
        return
    before, last = first[:-1], first[-1]
    features = before.fit_transform(train.X) if before.steps else train.X
    values = [model[-1].C for model in models]
    fitted = {one.C: one for one in last.path(features, train.y, values)}
    yield from (make_pipeline(*(step for _, step in before.steps), fitted[C]) for C in values)
