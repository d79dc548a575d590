"""Choosing hyper-parameters: folds that keep images and groups whole, and scores of candidates.

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

from pipeline.engines import Cluster
from pipeline.errors import RefusedError
from pipeline.evaluation import metrics
from pipeline.heads.rows import Rows, packed, unpacked
from pipeline.heads.types import Classifier, Features, Ints, Labels

Built = tuple[Mapping[str, Any], Classifier]
"""Settings, and the unfitted classifier that has them."""

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

    @property
    def mean(self) -> float:
        """The mean score over the folds."""
        return float(np.mean(self.scores)) if self.scores else float("nan")


@dataclass(frozen=True)
class Fold:
    """Rows to train on, rows held out, and of these the images as they are, without further views."""

    train: Ints
    held: Ints
    judged: Ints


@dataclass(frozen=True)
class Judging:
    """By what candidates are judged."""

    rows: Rows
    folds: Sequence[Fold]
    metric: str
    progress: Callable[[int], object]
    """Is told the number of fits done."""
    cluster: Cluster
    """Where they run."""


def folds_of(rows: Rows, number: int, seed: int) -> list[Fold]:
    """Deal images into shuffled folds, stratified and with groups kept whole, and their rows with them.

    Shuffled, for files often lie in an order that means something.

    Raises:
        InputError: if a class has fewer images, or the data fewer groups, than there are folds.

    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # noqa: PLC0415

    _, first, image_of = np.unique(rows.image, return_index=True, return_inverse=True)
    y, group = rows.y[first], _whole_groups(rows.group[first])
    grouped = len(np.unique(group)) < len(group)
    require_enough(y, group, number)
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(number, shuffle=True, random_state=seed)
    return [
        Fold(np.flatnonzero(np.isin(image_of, train)), np.flatnonzero(np.isin(image_of, held)), first[held])
        for train, held in splitter.split(first, y, group if grouped else None)
    ]


def _whole_groups(group: Labels) -> Labels:
    """Make every image without a group a group of its own."""
    alone = np.array([f"\0{number}" for number in range(len(group))])
    return np.where(group == "", alone, group)


def require_enough(y: Labels, group: Labels, folds: int) -> None:
    """Raise InputError unless every class has at least one image, and one group, for each fold."""
    problems = []
    for name, count in zip(*np.unique(y, return_counts=True), strict=True):
        groups = len(np.unique(group[y == name]))
        got = f"{count} training images" + (f" in {groups} groups" if groups < count else "")
        if groups < folds:
            problems.append(f"class {str(name)!r}: got {got}, expected at least {folds}, one for each of the folds")
    if problems:
        raise RefusedError(*problems)


def best_of(candidates: Sequence[Candidate]) -> int:
    """Return the number of the best candidate among those scored on all rows; the first of equals."""
    whole = [number for number, candidate in enumerate(candidates) if candidate.rows is None]
    return max(whole, key=lambda number: (candidates[number].mean, -number))


def scored(models: Sequence[Built], judging: Judging, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Fit every candidate on every fold; return its scores by the named metrics: (candidates, folds, metrics)."""
    folds = [(packed(fold.train), packed(fold.judged)) for fold in judging.folds]
    jobs = list(itertools.product(_paths(models), range(len(folds))))
    tasks = [_Scoring([models[number][1] for number in path], *folds[fold]) for path, fold in jobs]
    rows = replace(judging.rows, group=np.full(len(judging.rows.y), ""))  # the folds are dealt: groups need not travel
    results = judging.cluster.map(partial(_scores_and_warnings, rows, names), tasks)
    table = np.empty((len(models), len(folds), len(names)))
    for (path, fold), (scores, warned) in zip(jobs, results, strict=True):
        table[path, fold] = scores
        for text, category in warned:
            warnings.warn(text, category, stacklevel=2)
        judging.progress(len(path))
    return table


def grid(models: Sequence[Built], judging: Judging) -> list[Candidate]:
    """Score every candidate on every fold."""
    table = scored(models, judging, [judging.metric])[:, :, 0].tolist()
    return [Candidate(params, tuple(row)) for (params, _), row in zip(models, table, strict=True)]


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
    """Keep a share of the images of a fold's training rows, of each class at least two, with all their views."""
    _, image_of = np.unique(rows.image, return_inverse=True)
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    kept = []
    for name in np.unique(rows.y[fold.train]):
        images = np.unique(image_of[fold.train[rows.y[fold.train] == name]])
        kept.append(images[np.argsort(rank[images])][: max(2, round(share * len(images)))])
    return replace(fold, train=fold.train[np.isin(image_of[fold.train], np.concatenate(kept))])


def _paths(models: Sequence[Built]) -> list[list[int]]:
    """Put candidates together that differ in C alone, where their classifier can fit all values of it in one go."""
    groups: dict[str, list[int]] = {}
    for number, (settings, model) in enumerate(models):
        can = hasattr(_scorer(model).steps[-1][1], "path") if hasattr(_scorer(model), "steps") else False
        shared = {key: value for key, value in settings.items() if key != "C"} if can else number
        groups.setdefault(repr(shared), []).append(number)
    return list(groups.values())


def _scorer(model: Classifier) -> Classifier:
    """Return what decides, without calibration, which would multiply the price of a search."""
    return getattr(model, "estimator", model) if "cv" in model.get_params(deep=False) else model


@dataclass(frozen=True)
class _Scoring:
    """One task: models that form a path, or one, and the packed rows of one fold."""

    models: Sequence[Classifier]
    train: bytes
    judged: bytes


def _scores_and_warnings(rows: Rows, names: Sequence[str], task: _Scoring) -> tuple[list[list[float]], list[Warned]]:
    """Score a task's models, and return what was warned of, too: a worker's warnings would stay with it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = _scores(rows, names, task)
    return scores, [(str(one.message), one.category) for one in caught]


def _scores(rows: Rows, names: Sequence[str], task: _Scoring) -> list[list[float]]:
    """Score a task's models by the named metrics: (models, metrics)."""
    train, judged = rows[unpacked(task.train)], rows[unpacked(task.judged)]
    classes = np.unique(rows.y)
    truth = np.searchsorted(classes, judged.y)
    return [
        [metrics.value(name, truth, np.searchsorted(classes, decided), len(classes)) for name in names]
        for decided in _decisions(task.models, train, judged.X)
    ]


def _decisions(models: Sequence[Classifier], train: Rows, X: Features) -> Iterator[Labels]:
    """Fit models, and yield the labels that each gives to X."""
    from sklearn.base import clone  # noqa: PLC0415

    first = clone(_scorer(models[0]))
    if len(models) == 1:
        yield fit_quietly(first, train).predict(X)
        return
    before, last = first[:-1], first[-1]
    features, judged = train.X, X
    if before.steps:
        features, judged = before.fit_transform(train.X), before.transform(X)
    values = [_scorer(model)[-1].C for model in models]
    fitted = {one.C: one for one in last.path(features, train.y, values)}
    yield from (fitted[C].predict(judged) for C in values)


def fit_quietly(model: Classifier, rows: Rows) -> Classifier:
    """Fit; then predict on one core, for threads add up a forest's votes in the order they finish."""
    model.fit(rows.X, rows.y)
    return model.set_params(**{key: 1 for key in model.get_params() if key.endswith("n_jobs")})
