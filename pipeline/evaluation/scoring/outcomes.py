"""Outcomes: what is true, what was decided and how probable it was, for the images that metrics score."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.scoring.predictions import (
    CondensedProbabilities,
    Floats,
    FullProbabilities,
    Ints,
    Predictions,
)
from pipeline.evaluation.scoring.ranks import Ranking

BINS = 15
"""Of confidence, equally wide, for calibration (Guo et al. 2017)."""

CountsByClass = tuple[Floats, Floats, Floats]
"""How many images are of each class, how many are decided for it, and how many are both: three of (B, K)."""


def _no_probabilities() -> FullProbabilities:
    return FullProbabilities(np.empty(0, np.int64), np.empty((0, 0)))


@dataclass(frozen=True)
class Outcomes:
    """N images: the true class (N,), the decided class (N,), and probabilities of K classes."""

    truth: Ints
    decided: Ints
    classes: int
    """K."""
    probabilities: FullProbabilities | CondensedProbabilities = field(default_factory=_no_probabilities)
    """Empty where only decisions are scored."""
    _sums: list[tuple[Floats, CountsByClass]] = field(default_factory=list, repr=False, compare=False)
    """The last counts that were added up by class, with the result: several metrics in a row ask for the same."""

    @classmethod
    def of(cls, predictions: Predictions) -> "Outcomes":
        """Take what metrics need from predictions."""
        return cls(predictions.truth(), predictions.decision(), len(predictions.classes), predictions.probabilities)

    @classmethod
    def of_probabilities(cls, truth: Ints, probability: Floats) -> "Outcomes":
        """Decide for the most probable class: truth (N,), probability (N, K)."""
        probabilities = FullProbabilities(truth, probability)
        return cls(truth, probabilities.likeliest, probability.shape[1], probabilities)

    def linear(self) -> "Outcomes":
        """Return the same with rank metrics that are linear in how often each image counts."""
        if self.probabilities.ranks or not isinstance(self.probabilities, FullProbabilities):
            return self
        ranking = Ranking(self.truth, self.classes)
        for number in ranking.classes:
            ranking.add(number, self.probabilities.probability[:, number])
        return replace(self, probabilities=replace(self.probabilities, ranks=ranking.result()))

    @cached_property
    def bin(self) -> Ints:
        """The bin of confidence of every image, (N,); confidence is the highest probability."""
        return np.asarray(np.clip(np.ceil(self.probabilities.highest * BINS).astype(np.int64) - 1, 0, BINS - 1))

    @cached_property
    def likeliest_is_right(self) -> npt.NDArray[np.bool_]:
        """Whether the most probable class is the true one, (N,)."""
        return np.asarray(self.probabilities.likeliest == self.truth)

    @cached_property
    def pairs(self) -> tuple[Ints, Ints]:
        """The pairs (true, decided) of classes that occur, (P, 2), sorted, and the number of images of each, (P,)."""
        codes, images = np.unique(self.truth * self.classes + self.decided, return_counts=True)
        return np.stack(np.divmod(codes, self.classes), axis=1), images

    def by_class(self, counts: Floats) -> CountsByClass:
        """Add counts (B, N) up by class."""
        if not self._sums or self._sums[0][0] is not counts:
            decided = sum_by_cell(counts, 2 * self.decided + (self.decided == self.truth), 2 * self.classes)
            actual = sum_by_cell(counts, self.truth, self.classes)
            self._sums[:] = [(counts, (actual, decided[:, ::2] + decided[:, 1::2], decided[:, 1::2]))]
        return self._sums[0][1]


def sum_by_cell(counts: Floats, cell: Ints, cells: int) -> Floats:
    """Add up counts (B, N) of things that lie in the cells (N,): (B, cells)."""
    return np.stack([np.bincount(cell, row, minlength=cells) for row in counts])
