"""From which agreement on can labels be judged? The label check on features that tell the classes more or less well.

Labels are true until some are swapped, so that it is known of every listed label whether it is right.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.preprocessing import scale
from tqdm import tqdm

from pipeline.quality import components, labels

BANDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Bounds of kappa between the table's rows."""
NOISE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0)
"""Added to the features, in standard deviations."""
WRONG = (0.0, 0.01, 0.05)
IMAGES = (240, 600)
SEEDS = (0, 1)
Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Result:
    """What the check lists of one case, whatever the agreement."""

    kappa: float
    wrong: float
    """Share of the labels that are swapped."""
    listed: float
    """Share of the images."""
    right: float
    """Share of the listed labels that are right; NaN where none is listed."""


def tasks() -> Iterator[tuple[Floats, Ints]]:
    """Yield features (N, D) and true classes (N,): digits as ten classes, as odd or even, as 3 or not; tumours."""
    digits, tumours = load_digits(), load_breast_cancer()
    for target in (digits.target, digits.target % 2, (digits.target == 3).astype(int)):
        yield scale(digits.data), target
    yield scale(tumours.data), tumours.target


def result(features: Floats, target: Ints, noise: float, wrong: float, images: int, seed: int) -> Result:
    """Draw images, blur their features, swap labels, and look at what the check would list."""
    generator = np.random.default_rng(seed)
    rows = generator.permutation(len(target))[:images]
    noisy = features[rows] + noise * generator.standard_normal((len(rows), features.shape[1]))
    given = target[rows].copy()
    swapped = generator.permutation(len(given))[: round(wrong * len(given))]
    given[swapped] = (given[swapped] + generator.integers(1, target.max() + 1, len(swapped))) % (target.max() + 1)
    parts = components.of(noisy.astype(np.float32), seed)
    probability = labels.out_of_fold(parts, given, range(len(given)), seed)
    listed = labels.suspected(given, probability, components.nearest(parts, 10)[0])
    right = float((given[listed] == target[rows][listed]).mean()) if len(listed) else np.nan
    return Result(labels.agreement(given, probability), wrong, len(listed) / len(given), right)


def table() -> str:
    """Return the study's table, a row for each band of kappa."""
    of_band: dict[int, list[Result]] = defaultdict(list)
    cases = list(product(tasks(), NOISE, WRONG, IMAGES, SEEDS))
    for (features, target), noise, wrong, images, seed in tqdm(cases, unit="case", disable=None):
        one = result(features, target, noise, wrong, images, seed)
        of_band[int(np.searchsorted(BANDS, one.kappa, side="right"))].append(one)
    titles = ("kappa", "cases", "images listed if no label is wrong",
              *(f"listed labels that are right, mean, if {wrong:.0%} are wrong" for wrong in WRONG[1:]))  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for band, found in sorted(of_band.items()):
        name = "below 0.2" if not band else f"{BANDS[band - 1]} and more"
        listed = [one.listed for one in found if not one.wrong]
        flooded = f"{min(listed):.0%} to {max(listed):.0%}" if listed else ""
        right = [[one.right for one in found if one.wrong == wrong and not np.isnan(one.right)] for wrong in WRONG[1:]]
        cells = [name, str(len(found)), flooded, *(f"{np.mean(some):.0%}" if some else "" for some in right)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
