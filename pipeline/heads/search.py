"""Choosing hyper-parameters: scores of candidates, and which of them wins.

scikit-learn's own searches know neither views of one image nor a path of regularisation; the folds are its own.
Every fit of one fold is a task for a cluster. A task carries its classifiers and the numbers of its rows; what all
tasks share is a reference to the features.
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
from pipeline.evaluation.scoring.metrics import Judged
from pipeline.evaluation.scoring.predictions import Ints
from pipeline.heads.rows import Rows, packed, unpacked
from pipeline.heads.training import trained
from pipeline.heads.types import Classifier

Built = tuple[Mapping[str, Any], Classifier]
"""Settings, and the unfitted classifier that has them."""

Order = Callable[[Mapping[str, Any]], Any]
"""Settings -> what sorts simple ones before complex ones."""

BLOCKS = 200
"""Parts of the judged rows that a standard error is the spread over, at most."""

Warned = tuple[str, type[Warning]]
"""What was said, and of which kind."""

KEPT = 3
"""One in so many candidates goes on to the next round of halving, on so many times the rows."""


@dataclass(frozen=True)
class Candidate:
    """One setting of the searched hyper-parameters and its score on each fold; no scores if there was no choice."""

    params: Mapping[str, Any]
    scores: tuple[float, ...] = ()
    rows: int | None = None
    """Training rows of a fold, where the search did not use all."""
    spread: float | None = None
    """Standard error of the only score, over images, or groups where there are some."""

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
class Judging:
    """By what candidates are judged."""

    rows: Rows
    folds: Sequence[Fold]
    metric: str
    probabilities: Callable[[Classifier, Rows], npt.NDArray[np.float64]]
    """Of a fitted classifier, on rows: as what is shipped would give them. It travels to other processes."""
    progress: Callable[[int], object]
    """Is told the number of fits done."""
    cluster: Cluster
    """Where they run."""


def folds_of(rows: Rows, number: int, seed: int) -> list[Fold]:
    """Deal images into folds, and their rows with them, as `folds.deal`."""
    return folds.deal(rows.y, rows.origin, number, seed)


def best_of(candidates: Sequence[Candidate], order: Order) -> int:
    """Return the number of the simplest candidate within one standard error of the best (Breiman et al. 1984, 3.4.3).

    Only those scored on all rows count. Of equally simple ones the first wins.
    """
    whole = [number for number, candidate in enumerate(candidates) if candidate.rows is None]
    best = max((candidates[number] for number in whole), key=lambda one: one.mean)
    near = [number for number in whole if candidates[number].mean >= best.mean - best.error - 1e-12]
    if not near:  # a single one has no score
        return whole[0]
    return min(near, key=lambda number: (order(candidates[number].params), number))


def scored(models: Sequence[Built], judging: Judging, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Fit every candidate on every fold; return its scores by the named metrics: (candidates, folds, metrics)."""
    table = np.empty((len(models), len(judging.folds), len(names)))
    for number, place, decided in _decided(models, judging):
        truth, classes = _truth(judging.rows, judging.folds[place])
        table[number, place] = [metrics.value(name, truth, decided, classes) for name in names]
    return table


def grid(models: Sequence[Built], judging: Judging) -> list[Candidate]:
    """Score every candidate on every fold."""
    found: list[list[tuple[float, float | None]]] = [[] for _ in models]
    for number, place, decided in _decided(models, judging):
        fold, spread = judging.folds[place], None
        truth, classes = _truth(judging.rows, fold)
        if len(judging.folds) == 1:
            unit = judging.rows.origin[fold.judged, 1]
            spread = standard_error(judging.metric, truth, decided, classes, unit)
        found[number].append((metrics.value(judging.metric, truth, decided, classes), spread))
    return [
        Candidate(settings, tuple(score for score, _ in scores), spread=scores[0][1])
        for (settings, _), scores in zip(models, found, strict=True)
    ]


def standard_error(metric: str, truth: Ints, decided: Ints, classes: int, unit: Ints) -> float:
    """Return the standard error of a metric of N decisions, by the jackknife (Efron & Tibshirani 1993, ch. 11).

    Units (N,), images or groups of them, are left out one after the other, or in BLOCKS of many.
    """
    _, number = np.unique(unit, return_inverse=True)
    parts = min(BLOCKS, int(number.max()) + 1)
    part = np.random.default_rng(0).permutation(int(number.max()) + 1)[number] % parts
    judged = Judged(truth, decided, classes)
    left = np.concatenate([
        metrics.METRICS[metric]((part != np.arange(start, min(start + 8, parts))[:, None]).astype(np.float64), judged)
        for start in range(0, parts, 8)
    ])  # fmt: skip
    return float(np.sqrt((parts - 1) / parts * ((left - left.mean()) ** 2).sum())) if parts > 1 else 0.0


def halving(models: Sequence[Built], judging: Judging, begin: int, seed: int) -> list[Candidate]:
    """Score random candidates on few rows, and the better third again on three times as many, until all rows are used.

    Successive halving (Jamieson & Talwalkar 2016) of `begin` candidates, as scikit-learn's HalvingRandomSearchCV.
    """
    rows, generator = judging.rows, np.random.default_rng(seed)
    left = sorted(generator.permutation(len(models))[:begin].tolist())
    order = generator.permutation(len(rows.y))
    done = []
    sizes = halving_sizes(len(left))
    for round_, next_size in enumerate([*sizes[1:], 0]):
        share = KEPT ** (round_ + 1 - len(sizes))
        parts = [_part(fold, rows, order, share) for fold in judging.folds]
        judged = grid([models[number] for number in left], replace(judging, folds=parts))
        ranked = sorted(range(len(left)), key=lambda place: (-judged[place].mean, place))
        used = len(parts[0].train) if next_size else None
        done += [replace(judged[place], rows=used) for place in sorted(ranked[next_size:])]
        left = sorted(left[place] for place in ranked[:next_size])
    return done


def halving_sizes(begin: int) -> list[int]:
    """Return how many candidates each round of halving has; the last has at most KEPT."""
    sizes = [begin]
    while sizes[-1] > KEPT:
        sizes.append(-(-sizes[-1] // KEPT))
    return sizes


def _part(fold: Fold, rows: Rows, order: Ints, share: float) -> Fold:
    """Keep a share of the images of a fold's training rows, with all their views; of each class two groups at least."""
    _, first, image_of = np.unique(rows.image, return_index=True, return_inverse=True)
    group_of = rows.origin[first, 1]
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    kept = []
    for name in np.unique(rows.y[fold.train]):
        images = np.unique(image_of[fold.train[rows.y[fold.train] == name]])
        images = images[np.argsort(rank[images])]
        kept.append(images[: max(2, round(share * len(images)))])
        # Heads that split rows within themselves need a second one.
        kept.append(images[group_of[images] != group_of[images[0]]][:1])
    return replace(fold, train=fold.train[np.isin(image_of[fold.train], np.concatenate(kept))])


def _paths(models: Sequence[Built]) -> list[list[int]]:
    """Put candidates together that differ in C alone, where their classifier can fit all values of it in one go."""
    groups: dict[str, list[int]] = {}
    for number, (settings, model) in enumerate(models):
        can = hasattr(model, "steps") and hasattr(model[-1], "path")
        shared = {key: value for key, value in settings.items() if key != "C"} if can else number
        groups.setdefault(repr(shared), []).append(number)
    return list(groups.values())


@dataclass(frozen=True)
class _Task:
    """Models that form a path, or one, and the packed rows of one fold."""

    models: Sequence[Classifier]
    train: bytes
    judged: bytes


def _decided(models: Sequence[Built], judging: Judging) -> Iterator[tuple[int, int, Ints]]:
    """Fit every candidate on every fold; yield its number, the fold's, and the class it gives to each judged row."""
    packs = [(packed(fold.train), packed(fold.judged)) for fold in judging.folds]
    jobs = list(itertools.product(_paths(models), range(len(packs))))
    tasks = [_Task([models[number][1] for number in path], *packs[fold]) for path, fold in jobs]
    results = judging.cluster.map(partial(_with_warnings, judging.rows, judging.probabilities), tasks)
    for (path, fold), (found, warned) in zip(jobs, results, strict=True):
        for text, category in warned:
            warnings.warn(text, category, stacklevel=2)
        judging.progress(len(path))
        for number, decided in zip(path, found, strict=True):
            yield number, fold, decided


def _truth(rows: Rows, fold: Fold) -> tuple[Ints, int]:
    classes, number = np.unique(rows.y, return_inverse=True)
    return number[fold.judged], len(classes)


def _with_warnings(
    rows: Rows, probabilities: Callable[[Classifier, Rows], npt.NDArray[np.float64]], task: _Task
) -> tuple[list[Ints], list[Warned]]:
    """Return what a task's models decide, and what was warned of, too: a worker's warnings would stay with it."""
    train, judged = rows[unpacked(task.train)], rows[unpacked(task.judged)]
    classes = np.unique(rows.y)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decided = [
            np.searchsorted(classes, model.classes_)[probabilities(model, judged).argmax(axis=1)]
            for model in _fitted(task.models, train)
        ]
    return decided, [(str(one.message), one.category) for one in caught]


def _fitted(models: Sequence[Classifier], train: Rows) -> Iterator[Classifier]:
    """Fit models, those of a path in one go."""
    from sklearn.base import clone  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    first = clone(models[0])
    if len(models) == 1:
        yield trained(first, train.X, train.y, train.origin)
        return
    before, last = first[:-1], first[-1]
    features = before.fit_transform(train.X) if before.steps else train.X
    values = [model[-1].C for model in models]
    fitted = {one.C: one for one in last.path(features, train.y, values)}
    yield from (make_pipeline(*(step for _, step in before.steps), fitted[C]) for C in values)
