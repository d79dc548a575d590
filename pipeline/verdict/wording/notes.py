"""Notes beside the answer: what the scores of the runs hide, and what the checks of the data found."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from pipeline.core.sections import Split
from pipeline.core.words import counted
from pipeline.evaluation import comparison
from pipeline.evaluation.curves import CurveDecisions, unlike_fractions
from pipeline.evaluation.groups import FEWEST_GROUPS
from pipeline.evaluation.runs import FinishedRun
from pipeline.quality.files import LIST
from pipeline.verdict.chance import chance_level
from pipeline.verdict.choices import Choices
from pipeline.verdict.data_checks import DataChecks
from pipeline.verdict.schema import Result, Verdict
from pipeline.verdict.scored_runs import ScoredRuns
from pipeline.verdict.wording.terms import metric_name, percent

MOST_CLASSES = 5
"""Tiny classes that a note names."""


def of_runs(scored: ScoredRuns, results: Sequence[Result]) -> list[str]:
    """Say what the scores hide: runs that predict one class, undefined metrics."""
    notes = []
    for result, predicted, plain in zip(results, scored.test, scored.plain, strict=True):
        decided = np.unique(predicted.decision())
        if len(decided) == 1:
            notes.append(f"{result.title} predicts {predicted.classes[decided[0]]!r} for every test image.")
        if undefined := [metric_name(name) for name in plain if name not in result.test]:
            notes.append(f"{result.title}: some class has too few test images for {', '.join(undefined)}.")
    return notes


def of_search(results: Sequence[Result], finished: Sequence[FinishedRun]) -> list[str]:
    """Repeat what the search for hyper-parameters noted, such as a best value at the edge of those tried."""
    return [
        f"{result.title}: {note}"
        for result, run in zip(results, finished, strict=True)
        for note in run.stamp.facts.get("notes", ())
    ]


def of_classes(test_images: Mapping[str, int]) -> list[str]:
    """Name the classes without test images; `test_images` has how many there are of each class."""
    absent = [name for name, images in test_images.items() if not images]
    return [f"No test image is of class {name!r}, so these numbers say nothing about that class." for name in absent]


def of_chance(verdict: Verdict) -> list[str]:
    """Say so if the best frozen head has not been shown to beat the largest class."""
    head, chance = verdict.of(verdict.best_head), chance_level(verdict.metric, verdict.test_images)
    if (score := head.test[verdict.metric]).low > chance.score:
        return []
    return [
        f"The best frozen head, {head.title}, has not been shown to be better than chance: always predicting "
        f"{chance.largest_class!r} would reach {chance.score:.1%} {metric_name(verdict.metric)}, and the 95% interval "
        f"of {head.title} is {score.low:.1%} to {score.high:.1%}."
    ]


def validation_images(choices: Choices) -> str:
    """Return how many validation images there are, and in how many groups."""
    groups = "" if choices.groups is None else f" in {counted(choices.groups, 'group')}"
    return f"{counted(choices.images, 'validation image')}{groups}"


def of_choices(choices: Choices, split: Split) -> Iterator[str]:
    """Say that the validation images are too few for the choices that rest on them, and how to get more."""
    if choices.few_groups:
        reason = f"fewer than {FEWEST_GROUPS} groups cannot show which run is better"
    elif choices.arbitrary:
        reason = (
            f"the standard error of an accuracy on them, {100 * choices.error:.1f} points, is as large as the runs "
            f"lie apart, {100 * (choices.spread or 0):.1f} points, so the choice is arbitrary"
        )
    else:
        return
    more = f"`split.val` above {split.val:g}"
    if split.method == "predefined":
        more = "more images whose split is val"
    yield (
        f"The best head, the best plan and the epoch that a plan keeps are chosen on {validation_images(choices)}: "
        f"{reason}. Choose again with {more}; `selection.repeats: 10` also judges each head by k-fold on the training "
        "images."
    )


def of_curves(curves: Mapping[str, CurveDecisions], fractions: Sequence[float], at_least: int) -> Iterator[str]:
    """Name the runs and the fractions that the label curves lack, by backbone; arguments as in `unlike_fractions`."""
    for backbone, curve in curves.items():
        labels = sorted({point.labels for point in curve.points})
        if labels and (unlike := unlike_fractions(labels, fractions, at_least)):
            yield f"The label curve on {backbone} has {unlike}."
        for name, reason in curve.failed.items():
            yield f"{name} on {backbone} is left out of the label curve because it failed: {reason}"


def of_approximations(images: int, classes: int, resamples: int, *, ranked: bool = False) -> list[str]:
    """Say how very many test images or classes changed the intervals.

    Args:
        images: test images.
        classes: K.
        resamples: how many were asked for.
        ranked: whether the probabilities of some run were too many for memory, so that only their ranks were kept.

    """
    notes = []
    if (fewer := comparison.affordable_resamples(images, resamples)) < resamples:
        notes.append(
            f"Intervals come from {fewer:,} resamples instead of the {resamples:,} of compare.bootstrap: "
            f"with {images:,} test images, more resamples would take minutes and hardly move a bound."
        )
    if ranked or comparison.ranks_are_linear(images, classes, resamples):
        notes.append(
            "Intervals of ROC-AUC and average precision use a linear approximation (the infinitesimal jackknife): "
            f"{images:,} test images in {classes:,} classes are too many to sort again for each resample."
        )
    return notes


def of_data(checks: DataChecks, verdict: Verdict) -> list[str]:
    """Say what the data checks found, how many test images it affects, and which command mends it."""
    return [*_leaks(checks), *_label_conflicts(checks), *_tiny_classes(checks), *_unequal_classes(verdict)]


def _leaks(checks: DataChecks) -> Iterator[str]:
    copies, alike, groups = checks.copies, checks.alike, checks.groups
    if sum(map(bool, (copies, alike, groups))) > 1:
        share = _affected(checks, copies, alike, groups)
        yield f"In all, {share} share bytes, pixels or a group with images of another split."
    method = "grouped" if all(checks.table.group) else "hash"  # grouped refuses an image without a group
    if copies:
        found = _in_different_splits(checks.pairs_of_copies(), "the same bytes", _affected(checks, copies))
        yield f"{found}: `dvc exp run -S split.method={method}` makes splits that keep them together."
    if alike:
        found = _in_different_splits(len(alike), "nearly the same pixels", _affected(checks, alike))
        yield f"{found}: `headswap quality --exclude-copies && dvc repro` excludes one of each pair whose labels agree."
    if groups:
        span, affect = ("spans", "affects") if len(groups) == 1 else ("span", "affect")
        yield (
            f"{counted(len(groups), 'group')} {span} several splits and {affect} {_affected(checks, groups)}: "
            f"`dvc exp run -S split.method={method}` makes splits that keep groups whole."
        )


def _in_different_splits(pairs: int, what: str, share: str) -> str:
    are, affect = ("is", "affects") if pairs == 1 else ("are", "affect")
    found = counted(pairs, "pair of images", "pairs of images")
    return f"{found} with {what} {are} in different splits and {affect} {share}"


def _label_conflicts(checks: DataChecks) -> Iterator[str]:
    if pairs := checks.pairs("label_conflict"):
        show, affect = ("shows", "affects") if len(pairs) == 1 else ("show", "affect")
        yield (
            f"{counted(len(pairs), 'pair of images', 'pairs of images')} {show} the same picture under two labels "
            f"and {affect} {_affected(checks, pairs)}: correct the label at its source, or write "
            f"`exclude` beside the wrong one in a copy of {LIST} and run `headswap quality --apply COPY && dvc repro`."
        )


def _tiny_classes(checks: DataChecks) -> Iterator[str]:
    if images := checks.tiny_classes():
        named = [f"{name!r} ({count})" for name, count in list(images.items())[:MOST_CLASSES]]
        rest = [f"{len(images) - MOST_CLASSES} more"] if len(images) > MOST_CLASSES else []
        verb = "has" if len(images) == 1 else "have"
        yield (
            f"{counted(len(images), 'class', 'classes')} {verb} too few images to train on or to test: "
            f"{', '.join([*named, *rest])}. Label more of them, merge them, or leave them out with "
            "`headswap quality --apply`."
        )


def _unequal_classes(verdict: Verdict) -> Iterator[str]:
    if not verdict.unequal or verdict.metric != "accuracy":
        return
    ordered = sorted(verdict.test_images.items(), key=lambda one: (-one[1], one[0]))
    (largest, most), (smallest, least) = ordered[0], ordered[-1]
    images = sum(verdict.test_images.values())
    yield (
        f"The classes are unequal: {largest!r} has {percent(most / images)} of the test images and {smallest!r} "
        f"{percent(least / images)}, so always predicting {largest!r} would reach {percent(most / images)} accuracy. "
        "`dvc exp run -S selection.metric=balanced_accuracy` makes every choice by balanced accuracy."
    )


def _affected(checks: DataChecks, *kinds: Collection[Collection[int]]) -> str:
    images, tested = checks.affected(*kinds), len(checks.tested)
    return f"{percent(images / tested)} of the test images ({images:,} of {tested:,})"
