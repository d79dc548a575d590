"""Folds and hold-outs of labelled rows that keep all views of an image, and all images of a group, together.

Heads split their rows only here: for searches, the calibration of scores, stacking and early stopping.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import RefusedError

Ints = npt.NDArray[np.integer[Any]]
Labels = npt.NDArray[Any]


@dataclass(frozen=True)
class Fold:
    """Rows to train on, rows held out, and those of the held-out rows that are images without augmentation."""

    train: Ints
    held: Ints
    judged: Ints


def origin_of(image: Ints, group: Labels) -> Ints:
    """Return image and group of every row as numbers, (n, 2); an image without a group is a group of its own."""
    _, number = np.unique(image, return_inverse=True)
    alone = np.array([f"\0{one:020}" for one in number])  # sorts as the numbers do, and folds depend on the order alone
    _, whole = np.unique(np.where(group == "", alone, group), return_inverse=True)
    return np.column_stack([number, whole])


def apart(rows: int) -> Ints:
    """Return the origin (n, 2) of rows of which each is an image and a group of its own."""
    return np.column_stack([np.arange(rows)] * 2)


def deal(y: Labels, origin: Ints, number: int, seed: int) -> list[Fold]:
    """Split images, with their rows, into stratified folds that keep groups together.

    Images are shuffled first, since the order of files often means something.

    Raises:
        RefusedError: if a class has fewer images, or fewer groups, than there are folds.

    """
    first, image_of = _images(origin)
    require_enough(y[first], origin[first, 1], number)
    return [
        Fold(np.flatnonzero(np.isin(image_of, train)), np.flatnonzero(np.isin(image_of, held)), first[held])
        for train, held in _dealt(y[first], origin[first, 1], number, seed)
    ]


def inner(y: Labels, origin: Ints, most: int, seed: int) -> list[Fold]:
    """Return as many folds as the groups of every class allow, `most` at most, for a head to use on its training rows.

    Raises:
        RefusedError: if a class has only one group.

    """
    first, _ = _images(origin)
    fewest = min(len(np.unique(origin[first, 1][y[first] == name])) for name in np.unique(y))
    return deal(y, origin, max(2, min(most, fewest)), seed)


def hold_out(y: Labels, origin: Ints, share: float, seed: int | None) -> tuple[Ints, Ints]:
    """Return rows to train on, and rows to watch: a stratified share of the images, without augmentation.

    Data too small to spare an image, or a group, of each class returns all its rows for both.
    """
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    first, image_of = _images(origin)
    y, group, everything = y[first], origin[first, 1], np.arange(len(y))
    names, counts = np.unique(y, return_counts=True)
    if counts.min() < 2 or round(len(first) * share) < len(names):
        return everything, everything
    if _grouped(group):
        most = min(len(np.unique(group)), int(counts.max()))  # scikit-learn refuses more folds
        parts = _dealt(y, group, max(2, min(round(1 / share), most)), seed) if most > 1 else []
        known = [(train, held) for train, held in parts if len(held) and len(np.unique(y[train])) == len(names)]
        if not known:
            return everything, everything
        train, held = known[0]
    else:
        train, held = train_test_split(np.arange(len(first)), test_size=share, stratify=y, random_state=seed)
    if len(first) == len(everything):
        return first[train], first[held]
    return np.flatnonzero(np.isin(image_of, train)), first[held]


def require_enough(y: Labels, group: Ints, folds: int) -> None:
    """Raise RefusedError unless every class has an image and a group for each fold."""
    problems = []
    for name, count in zip(*np.unique(y, return_counts=True), strict=True):
        groups = len(np.unique(group[y == name]))
        got = f"{count} training images" + (f" in {groups} groups" if groups < count else "")
        if groups < folds:
            problems.append(f"class {str(name)!r}: got {got}, expected at least {folds}, one for each of the folds")
    if problems:
        raise RefusedError(*problems)


def _images(origin: Ints) -> tuple[Ints, Ints]:
    """Return the first row of every image, which is the one without augmentation, and the image of every row."""
    _, first, image_of = np.unique(origin[:, 0], return_index=True, return_inverse=True)
    return first, image_of


def _grouped(group: Ints) -> bool:
    return len(np.unique(group)) < len(group)


def _dealt(y: Labels, group: Ints, number: int, seed: int | None) -> Sequence[tuple[Ints, Ints]]:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # noqa: PLC0415

    grouped = _grouped(group)
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(number, shuffle=True, random_state=seed)
    return list(splitter.split(y, y, group if grouped else None))
