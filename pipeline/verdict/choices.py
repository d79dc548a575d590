"""What the choices among runs rest on: the validation images, and how well they tell runs apart."""

import math
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation import clusters
from pipeline.evaluation.comparison import Right
from pipeline.evaluation.groups import FEWEST_GROUPS, Units
from pipeline.verdict.scored_runs import ScoredRuns


@dataclass(frozen=True)
class Choices:
    """The validation images, and the scores of the runs on them."""

    images: int
    groups: int | None
    """Groups that they come from; None if every image is one."""
    error: float
    """Standard error of the best run's accuracy on them."""
    spread: float | None
    """Of the runs' scores on them, highest minus lowest; None if there is no choice between two heads or two plans."""

    @property
    def few_groups(self) -> bool:
        """Whether the groups are too few to show which run is better."""
        return self.groups is not None and self.groups < FEWEST_GROUPS

    @property
    def arbitrary(self) -> bool:
        """Whether chance alone would spread the scores of equal runs this far."""
        return self.spread is not None and self.error >= self.spread


def read(scored: ScoredRuns) -> Choices:
    """Describe the validation images of the runs."""
    scores = [found[scored.metric] for found in scored.validation]
    best = scored.decided[int(np.argmax(scores))].of("val")
    units, kinds = Units.by_group(best.image_id, scored.group_of), [run.kind for run in scored.finished]
    chosen = len(kinds) > len(set(kinds))
    return Choices(
        images=len(best.label),
        groups=units.number if units.grouped else None,
        error=_standard_error(best.right(), units),
        spread=max(scores) - min(scores) if chosen else None,
    )


def _standard_error(right: Right, units: Units) -> float:
    """Return the standard error of an accuracy, not 0 for a perfect one (Agresti & Coull 1998); right (N,)."""
    images, hits = len(right) + 4, float(right.sum()) + 2
    alone = hits / images * (1 - hits / images) / images
    if not units.grouped or units.number < 2:
        return math.sqrt(alone)
    return math.sqrt(max(alone, clusters.jackknife_variance(units.sums(right.astype(np.float64)), units)))
