"""Label efficiency: score by number of labels, and from how many on a plan stays ahead of the best frozen head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.evaluation import comparison
from pipeline.evaluation.comparison import Estimate, interval
from pipeline.evaluation.curves import CurveDecisions
from pipeline.evaluation.groups import Units
from pipeline.evaluation.scoring import metrics
from pipeline.evaluation.scoring.metrics import METRICS
from pipeline.evaluation.scoring.outcomes import Outcomes
from pipeline.evaluation.scoring.predictions import Floats, Ints

Scores = Mapping[str, Floats]
"""run -> (F, S) by number of labels, ascending, and drawing."""
Samples = Mapping[str, Floats]
"""run -> (F, B) by number of labels and resample, the mean over the drawings."""


@dataclass(frozen=True)
class CurveScore:
    """The score of a run with a number of labels."""

    labels: int
    score: Estimate
    """On the test images, mean over the drawings."""
    spread: float | None
    """Standard deviation over the drawings; None for a single drawing."""


@dataclass(frozen=True)
class Crossover:
    """From how many labels on a plan stays ahead of the best frozen head."""

    plan: str
    heads: Sequence[str]
    """For each number of labels, the best head by validation score."""
    labels: float | None
    """None if the plan is not ahead with all labels, even if it is with fewer; the smallest number if always ahead."""
    low: float | None
    high: float | None
    """95% interval; None: beyond the data."""
    ahead_with_all: float
    """Share of the resamples in which the plan is ahead with all labels."""


@dataclass(frozen=True)
class LabelEfficiency:
    """The label-efficiency curve of one backbone."""

    metric: str
    drawings: int
    reached: Mapping[str, Sequence[CurveScore]]
    """run -> by number of labels, ascending."""
    kinds: Mapping[str, str]
    """run -> "head" or "plan"."""
    crossovers: Sequence[Crossover]
    """One per plan, if there is a head to compare with."""
    groups: int | None = None
    """Groups that the test images come from; None if there are none."""


def label_efficiency(
    curve: CurveDecisions, metric: str, resamples: int, seed: int, group_of: Mapping[str, str] | None = None
) -> LabelEfficiency:
    """Score the points of a curve on the test images.

    Both test images and drawings are resampled, the same for all runs (Owen 2007, The pigeonhole bootstrap: with both
    factors resampled, the interval is a little too wide rather than too narrow).

    Args:
        curve: decisions of heads and plans trained on parts of the training images.
        metric: a metric of decisions.
        resamples: their number, B.
        seed: of the resampling.
        group_of: image_id -> group; the test images of one group are resampled together.

    """
    rows = [row for row, split in enumerate(curve.split) if split == "test"]
    units = Units.by_group([curve.image_id[row] for row in rows], group_of or {})
    truth = np.unique([curve.label[row] for row in rows], return_inverse=True)[1]
    percentiles = units.percentiles(metrics.weight(metric, truth))
    labels = np.unique([point.labels for point in curve.points])
    validation, test = (_scores(curve, split, metric) for split in ("val", "test"))
    samples = _resampled_scores(curve, metric, resamples, seed, units)
    reached = {run: _curve_scores(labels, test[run], samples[run], percentiles) for run in test}
    heads, plans = ([run for run, kind in curve.kinds.items() if kind == wanted] for wanted in ("head", "plan"))
    best = _best_heads(heads, validation)
    crossovers = [_crossover(plan, best, labels, test, samples, percentiles) for plan in plans if heads]
    drawings = len({point.seed for point in curve.points})
    groups = units.number if units.grouped else None
    return LabelEfficiency(metric, drawings, reached, curve.kinds, crossovers, groups)


def crossing(labels: Ints, difference: Floats) -> float:
    """Return from how many labels on a difference (F,) stays above zero; infinity if it is not above it at the end.

    Between two numbers of labels (F,) the difference is interpolated linearly in the logarithm of the labels.

    >>> round(crossing(np.array([10, 100, 1000]), np.array([-0.1, 0.1, 0.2])), 1)
    31.6
    """
    behind = np.flatnonzero(difference <= 0)
    if not len(behind):
        return float(labels[0])
    last = behind[-1]
    if last == len(labels) - 1:
        return float("inf")
    below, above = difference[last], difference[last + 1]
    start, stop = np.log(labels[last]), np.log(labels[last + 1])
    return float(np.exp(start + (stop - start) * -below / (above - below)))


def _decisions_by_run(curve: CurveDecisions) -> Mapping[str, list[list[Ints]]]:
    """Return the decisions of every run by number of labels, then by drawing."""
    ordered = sorted(curve.points, key=lambda point: (point.labels, point.seed))
    found: dict[str, dict[int, list[Ints]]] = {run: {} for run in curve.kinds}
    for point in ordered:
        found[point.run].setdefault(point.labels, []).append(point.decided)
    return {run: list(by_labels.values()) for run, by_labels in found.items()}


def _outcomes(curve: CurveDecisions, split: str) -> Mapping[str, list[list[Outcomes]]]:
    rows = np.flatnonzero(np.array(curve.split) == split)
    number = {name: place for place, name in enumerate(curve.classes)}
    truth = np.array([number[curve.label[row]] for row in rows.tolist()])
    return {
        run: [[Outcomes(truth, one[rows], len(curve.classes)) for one in drawings] for drawings in by_labels]
        for run, by_labels in _decisions_by_run(curve).items()
    }


def _scores(curve: CurveDecisions, split: str, metric: str) -> Scores:
    def score(one: Outcomes) -> float:
        return metrics.value(metric, one.truth, one.decided, one.classes)

    return {
        run: np.array([[score(one) for one in drawings] for drawings in by_labels])
        for run, by_labels in _outcomes(curve, split).items()
    }


def _resampled_scores(curve: CurveDecisions, metric: str, resamples: int, seed: int, units: Units) -> Samples:
    outcomes, score = _outcomes(curve, "test"), METRICS[metric]
    images, drawings = curve.split.count("test"), len({point.seed for point in curve.points})
    resamples, generator = comparison.affordable_resamples(images, resamples), np.random.default_rng(seed)
    found = {run: np.empty((len(by_labels), resamples)) for run, by_labels in outcomes.items()}
    for chunk in comparison.chunks(images, resamples):
        size = chunk.stop - chunk.start
        counts = units.counts(generator, size)
        shares = generator.multinomial(drawings, np.full(drawings, 1 / drawings), size) / drawings
        for run, by_labels in outcomes.items():
            for place, of_drawings in enumerate(by_labels):
                found[run][place, chunk] = sum(
                    shares[:, drawing] * score(counts, one) for drawing, one in enumerate(of_drawings)
                )
    return found


def _curve_scores(labels: Ints, scores: Floats, samples: Floats, percentiles: tuple[float, float]) -> list[CurveScore]:
    return [
        CurveScore(int(number), Estimate(float(some.mean()), *interval(sampled, percentiles)), _spread(some))
        for number, some, sampled in zip(labels, scores, samples, strict=True)
    ]


def _spread(scores: Floats) -> float | None:
    return float(scores.std(ddof=1)) if len(scores) > 1 else None


def _best_heads(heads: Sequence[str], validation: Scores) -> list[str]:
    """Return for each number of labels the head with the best validation score; the first of equals."""
    means = [validation[head].mean(axis=1) for head in heads]
    return [heads[place] for place in np.argmax(means, axis=0)] if heads else []


def _crossover(
    plan: str, heads: Sequence[str], labels: Ints, test: Scores, samples: Samples, percentiles: tuple[float, float]
) -> Crossover:
    def ahead(values: Mapping[str, Floats]) -> Floats:
        return np.array([values[plan][place] - values[head][place] for place, head in enumerate(heads)])

    sampled = ahead(samples)
    crossings = np.array([crossing(labels, one) for one in sampled.T])
    low, high = np.percentile(crossings, percentiles, method="inverted_cdf")
    return Crossover(
        plan=plan,
        heads=heads,
        labels=_finite(crossing(labels, ahead(test).mean(axis=1))),
        low=_finite(low),
        high=_finite(high),
        ahead_with_all=float((sampled[-1] > 0).mean()),
    )


def _finite(value: npt.ArrayLike) -> float | None:
    return float(value) if np.isfinite(value) else None  # type: ignore[arg-type]
