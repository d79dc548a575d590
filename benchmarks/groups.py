"""Do intervals and tests hold what they promise where test images come in groups? A simulation with a known truth.

Two runs judge images of groups. How often each run is right in a group varies from group to group, by a beta
distribution whose intra-class correlation is given; both runs' rates are drawn apart, so that nothing of it cancels:
the hard case. Groups are of equal size, or of sizes from a negative binomial distribution, some ten times others.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta
from tqdm import tqdm

from pipeline.evaluation import clusters, comparison, pairs
from pipeline.evaluation.groups import Units
from pipeline.evaluation.scoring.predictions import Predictions

RESAMPLES = 500
IMAGES = 12
"""Of a group, on average."""
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Case:
    """What is true."""

    groups: int
    correlation: float
    """Of being right, between images of one group, for each run."""
    accuracy: float
    """Of the first run."""
    gain: float
    """Of the second run over it."""
    equal: bool
    """Whether all groups have the same size."""


@dataclass(frozen=True)
class Found:
    """Shares of the simulations."""

    covered: float
    """In which the interval of the difference holds the true one."""
    of_one: float
    """In which the interval of the first run's accuracy does."""
    of_images: float
    """As `covered`, with every image taken for itself."""
    rejected: float
    """In which the test finds a difference."""


def simulated(case: Case, simulations: int, seed: int = 0) -> Found:
    """Draw test images so often, and look at intervals and test."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(simulations):
        units, runs = _drawn(case, generator)
        first, second = (run.right() for run in runs)
        plain = [float(first.mean()), float(second.mean())]
        named = dict(zip("ab", runs, strict=True))
        counts = units.counts(generator, RESAMPLES)
        samples = np.array([counts @ right / counts.sum(axis=1) for right in (first, second)])
        (pair,) = pairs.compare(named, samples, plain, "accuracy", units)
        sampled = clusters.resampled_interval(plain[0], samples[0], units, None)
        one = clusters.wider(sampled, clusters.accuracy_interval(first, units))
        apart = comparison.paired_accuracy_interval(first, second)
        found.append((
            pair.difference.low <= -case.gain <= pair.difference.high,
            one[0] <= case.accuracy <= one[1],
            apart[0] <= -case.gain <= apart[1],
            pair.p < pairs.LEVEL,
        ))  # fmt: skip
    return Found(*np.mean(found, axis=0).tolist())


def power(groups: int, correlation: float, simulations: int, seed: int = 0) -> float:
    """Return how often the test finds a gain as large as the one that equal runs' test images call detectable."""
    generator = np.random.default_rng(seed)
    null = Case(groups, correlation, 0.8, 0.0, equal=True)
    drawn = [_drawn(null, generator) for _ in range(20)]
    known = [pairs.detectable(first, second, units) for units, (first, second) in drawn]
    gain = float(np.median([one for one in known if one is not None]))
    case = Case(groups, correlation, 0.8 - gain / 2, gain, equal=True)
    shown = []
    for _ in range(simulations):
        units, (first, second) = _drawn(case, generator)
        shown.append(clusters.sign_flip_p(clusters.gains(first.right(), second.right(), units)) < pairs.LEVEL)
    return float(np.mean(shown))


def _drawn(case: Case, generator: np.random.Generator) -> tuple[Units, list[Predictions]]:
    sizes = np.full(case.groups, IMAGES)
    if not case.equal:
        sizes = 1 + generator.negative_binomial(1.5, 1.5 / (IMAGES + 0.5), case.groups)
    of = np.repeat(np.arange(case.groups), sizes)
    rates = [_rates(accuracy, case, generator) for accuracy in (case.accuracy, case.accuracy + case.gain)]
    return Units(of), [_right(generator.random(len(of)) < rate[of]) for rate in rates]


def _rates(accuracy: float, case: Case, generator: np.random.Generator) -> Floats:
    """Draw each group's accuracy: beta with this mean, and a variance of `correlation` times that of a single image."""
    if not case.correlation:
        return np.full(case.groups, accuracy)
    strength = 1 / case.correlation - 1
    drawn = beta.rvs(accuracy * strength, (1 - accuracy) * strength, size=case.groups, random_state=generator)
    return np.asarray(drawn)


def _right(right: npt.NDArray[np.bool_]) -> Predictions:
    """Make predictions of class a, right where told."""
    probability = np.where(right, 0.9, 0.1)[:, None] * [1, -1] + [0, 1]
    images = len(right)
    return Predictions(list(map(str, range(images))), ["test"] * images, ["a"] * images, "ab", probability)


def table(simulations: int) -> str:
    """Return the study's table."""
    titles = ("groups", "correlation", "covers the difference", "covers one accuracy", "taking images alone covers",
              "rejects a true null")  # fmt: skip
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    grid = [(groups, correlation) for groups in (10, 20, 50, 200) for correlation in (0.0, 0.1, 0.3, 0.6)]
    for groups, correlation in tqdm(grid, unit="case", disable=None):
        null, gained = (
            [simulated(Case(groups, correlation, accuracy, gain, equal), simulations) for equal in (True, False)]
            for accuracy, gain in ((0.85, 0.0), (0.85, 0.07))
        )
        every = [*null, *gained]
        cells = [*(min(getattr(one, name) for one in every) for name in ("covered", "of_one", "of_images")),
                 max(one.rejected for one in null)]  # fmt: skip
        lines.append(f"| {groups} | {correlation} | " + " | ".join(f"{100 * cell:.1f}%" for cell in cells) + " |")
    return "\n".join(lines)
