"""Units: the unit of intervals and tests, one test image or, where the manifest has groups, all images of a group.

Images of one patient, module or session succeed and fail together. Taken one by one they look like more evidence than
they are: intervals are too narrow and p-values too small (Obuchowski 1998, Statistics in Medicine 17:1495).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.evaluation.scoring.predictions import Floats, Ints

FEWEST_GROUPS = 6
"""Fewer groups give no answer: five groups can favour one of two runs in 2^5 ways, and the two most extreme ones have a
chance of 2 in 32, which is more than 5%."""
_FEW = 2**15
"""Up to so many units their counts are drawn; of more, drawing units one by one is ten times as fast."""
PLAIN = (2.5, 97.5)
"""Percentiles that bound the central 95%."""


@dataclass(frozen=True)
class Units:
    """N images in G units; G = N if no two images belong together."""

    of: Ints
    """(N,) the number, from 0, of each image's unit."""

    @classmethod
    def alone(cls, images: int) -> "Units":
        """Make every image a unit."""
        return cls(np.arange(images))

    @classmethod
    def by_group(cls, image_ids: Sequence[str], group_of: Mapping[str, str]) -> "Units":
        """Make every group a unit; an image without a group is a unit of its own."""
        names = [group_of.get(image_id, "") or f"\0{image_id}" for image_id in image_ids]
        number: dict[str, int] = {}
        return cls(np.array([number.setdefault(name, len(number)) for name in names], dtype=np.int64))

    @cached_property
    def size(self) -> Ints:
        """Images of each unit, (G,)."""
        return np.bincount(self.of)

    @property
    def number(self) -> int:
        """G."""
        return len(self.size)

    @property
    def grouped(self) -> bool:
        """Whether some images belong together."""
        return self.number < len(self.of)

    def counts(self, generator: np.random.Generator, resamples: int) -> Floats:
        """Draw units with replacement; return how often each image counts, (resamples, N)."""
        counts = _draw_counts(generator, self.number, resamples)
        return counts[:, self.of] if self.grouped else counts

    def sums(self, values: Floats) -> Floats:
        """Add up values (N,) by unit, (G,)."""
        return np.asarray(np.bincount(self.of, values, self.number), dtype=np.float64)

    def effective(self, weight: Floats | None = None) -> float:
        """Return the effective number of units: 1 / sum of their squared shares (Kish 1965).

        Args:
            weight: (N,) what each image adds to a metric; None if all add the same.

        """
        share = self.size if weight is None else self.sums(weight)
        return float(share.sum() ** 2 / (share.astype(np.float64) ** 2).sum()) if share.any() else 0.0

    def percentiles(self, weight: Floats | None = None) -> tuple[float, float]:
        """Return the two percentiles of the resampled values that bound the 95% interval.

        The percentile interval of few units is too narrow: by the root of (G - 1) / G, and because it ignores that the
        distribution is Student's. Percentiles further out make up for both (the expanded percentile interval,
        Hesterberg 2015, The American Statistician 69:371), with the effective number of units as G.

        Args:
            weight: (N,) what each image adds to the metric.

        """
        if not self.grouped:
            return PLAIN
        from scipy.special import ndtr  # noqa: PLC0415  # train and finetune import this room and do not need SciPy

        units = max(self.effective(weight), 2.0)
        tail = 100 * float(ndtr(-math.sqrt(units / (units - 1)) * student(0.975, units)))
        return tail, 100 - tail


def _draw_counts(generator: np.random.Generator, number: int, resamples: int) -> Floats:
    if number <= _FEW:
        return generator.multinomial(number, np.full(number, 1 / number), size=resamples).astype(np.float64)
    counts = np.empty((resamples, number))
    for row in counts:
        row[:] = np.bincount(generator.integers(number, size=number), minlength=number)
    return counts


def student(probability: float, units: float) -> float:
    """Return the quantile of Student's distribution with units - 1 degrees of freedom, at least one."""
    from scipy.special import stdtrit  # noqa: PLC0415

    return float(stdtrit(max(units - 1, 1.0), probability))
