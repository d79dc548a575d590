"""Rank metrics of many images and classes in linear form: their values, and the influence of each image.

To resample a rank metric exactly, every class must be sorted again. Where that takes too long, a resample approximates
the metric as linear in how often each image counts: value + counts @ influence, the infinitesimal jackknife (Jaeckel
1972; Efron 1982, ch. 6). For the ROC-AUC the influences are DeLong's structural components (DeLong et al. 1988).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SHIFT = 44
"""Bits of a float64 that are dropped from a key: 12 of sign and exponent and 8 of the fraction are left."""
_KEYS = (0x4000000000000000 >> _SHIFT) + 1
"""Keys of the numbers from 0 to below 2."""


@dataclass(frozen=True)
class LinearMetric:
    """A metric of n images, linear in how often each of them counts."""

    value: float
    """NaN if the images do not define it."""
    influence: Floats
    """(n,) the derivative of the metric by the count of each image, where all count once; they sum to zero."""

    def resampled(self, counts: Floats) -> Floats:
        """Return the metric on resamples: counts (B, n) -> (B,)."""
        return np.asarray(self.value + counts @ self.influence)


class Ranking:
    """Averages the rank metrics of one class against the rest over the classes, which are added one by one."""

    def __init__(self, truth: Ints, classes: int) -> None:
        self._images = len(truth)
        order = np.argsort(truth, kind="stable")
        self._rows = np.split(order, np.searchsorted(truth[order], np.arange(1, classes)))
        self.classes: Sequence[int] = [1] if classes == 2 else range(classes)
        """The classes to add: of two classes only the second."""
        self._sums = {name: (list[float](), np.zeros(len(truth))) for name in ("roc_auc", "average_precision")}

    def add(self, number: int, score: Floats) -> None:
        """Add the probabilities of a class, (n,), each from 0 to 1."""
        rows = self._rows[number]
        if not len(rows):
            return  # a class without images does not count
        score = np.clip(score, 0.0, 1.0) + 0.0  # turns negative zeros, which have other bits, into zeros
        own, many = np.unique(score[rows], return_counts=True)  # the m distinct scores of its images, ascending
        place = _count_at_most(own, score)
        tied = np.concatenate([[-1.0], own])[place] == score
        at = np.bincount(2 * place + tied, minlength=2 * len(own) + 2).reshape(-1, 2)  # images by place, and if tied
        below = np.cumsum(at.sum(axis=1))[:-1]  # images below each own score, (m,)
        behind = np.concatenate([[0], np.cumsum(many)])  # its own images at or below each place, (m + 1,)
        self._precision(rows, place, many, len(rows) - behind[:-1], self._images - below)
        if len(rows) < self._images:
            self._auc(rows, place, tied, many, behind, below, at[1:, 1] - many)

    def _auc(self, rows: Ints, place: Ints, tied: Any, many: Ints, behind: Ints, below: Ints, equal: Ints) -> None:  # noqa: ANN401  # booleans (n,)
        """P(score of an own image > that of another) + P(equal) / 2."""
        values, influence = self._sums["roc_auc"]
        own, others = len(rows), self._images - len(rows)
        beaten = below - behind[:-1] + equal / 2  # others that each own score beats, (m,)
        value = float((many * beaten).sum() / (own * others))
        ahead = np.stack([own - behind, own - behind + np.concatenate([[0], many]) / 2], axis=1) / own
        part = ((ahead - value) / others).ravel()[2 * place + tied]
        part[rows] = (beaten[place[rows] - 1] / others - value) / own
        influence += part
        values.append(value)

    def _precision(self, rows: Ints, place: Ints, many: Ints, found: Ints, taken: Ints) -> None:
        """Sum of precision times gain in recall; found and taken are what lies at or above each own score, (m,)."""
        values, influence = self._sums["average_precision"]
        own, precision = len(rows), found / taken
        value = float((many * precision).sum() / own)
        lost = np.concatenate([[0], np.cumsum(many * precision / taken)])
        gained = np.cumsum(many / taken)
        influence -= (lost / own)[place]
        at = place[rows] - 1
        influence[rows] += (precision[at] - value + gained[at]) / own
        values.append(value)

    def result(self) -> dict[str, LinearMetric]:
        """Return every metric: the mean over the classes that have images."""
        return {
            name: LinearMetric(float(np.mean(values)), influence / len(values))
            if values
            else LinearMetric(float("nan"), np.full(self._images, np.nan))
            for name, (values, influence) in self._sums.items()
        }


def _count_at_most(own: Floats, score: Floats) -> Ints:
    """Return how many of `own`, (m,) distinct and ascending, are at most each score, (n,), as np.searchsorted does.

    Floats that are not negative sort by their bits, so a table by leading bits answers for most scores at once, and
    only the others are searched for. For many scores that is ten times as fast.
    """
    if len(score) < _KEYS // 4:
        return np.searchsorted(own, score, side="right")
    keys = np.ascontiguousarray(score).view(np.int64) >> _SHIFT
    table = np.cumsum(np.bincount((own.view(np.int64) >> _SHIFT) + 1, minlength=_KEYS + 1))  # own scores of lower keys
    place = table[keys]
    unsure = np.flatnonzero(place != table[keys + 1])
    place[unsure] = np.searchsorted(own, score[unsure], side="right")
    return np.asarray(place)
