"""Every sentence of the answer: the rule, what the best head and plan reach, what cannot be told, and notes on runs."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pipeline.evaluation.curves import Curve
from pipeline.evaluation.groups import FEWEST
from pipeline.evaluation.pairs import Pair
from pipeline.verdict.schema import Answer, Result, Verdict, effort
from pipeline.verdict.scored import Scored

INTERVAL = {"accuracy": "Newcombe's score interval for paired proportions"}
RULE = (
    "The head and the plan with the best validation {metric} are compared on the test images. If the 95% interval of "
    "plan minus head ({interval}) lies below the margin of {margin:.1f} points: keep the frozen head. Else, if it lies "
    "above zero: fine-tune. Else: cannot tell."
)
RULE_OF_GROUPS = f" Interval and test take whole groups of test images; fewer than {FEWEST} groups give no answer."


def rule(scored: Scored, margin: float) -> str:
    """Say how the answer follows from the interval, with a margin that is a share of the images."""
    interval = INTERVAL.get(scored.metric, "paired bootstrap")
    rule = RULE.format(metric=_words(scored.metric), interval=interval, margin=margin * 100)
    return rule + RULE_OF_GROUPS if scored.units.grouped else rule


def undecidable(answer: Answer, groups: int | None, gain: Pair | None) -> str:
    """Say why so few groups cannot tell what the interval would tell; empty if they can."""
    if groups is None or gain is None:
        return ""
    if groups < FEWEST:
        named = "1 group" if groups == 1 else f"{groups} groups"
        return f"The test images come from {named}, and fewer than {FEWEST} cannot show anything"
    differing = gain.differing_groups or 0
    if answer == "fine-tune" and differing < FEWEST:
        return f"The two differ on {differing} of {groups} groups, and fewer than {FEWEST} cannot show which is better"
    return ""


def notes(scored: Scored, results: Sequence[Result]) -> list[str]:
    """Say what the scores do not: classes that no test image has, runs that decide one class, notes of the runs."""
    test = scored.test[0]
    present = set(test.label)
    absent = [name for name in test.classes if name not in present]
    found = [f"No test image is of class {name!r}: of that class these numbers say nothing." for name in absent]
    for result, predicted, plain in zip(results, scored.test, scored.plain, strict=True):
        if len(np.unique(predicted.decision())) == 1:
            only = predicted.classes[predicted.decision()[0]]
            found.append(f"{result.title} decides {only!r} for every test image.")
        if missing := [name.replace("_", " ") for name in plain if name not in result.test]:
            found.append(f"{result.title}: too few test images of some class for {', '.join(missing)}.")
    for result, run in zip(results, scored.finished, strict=True):
        found += [f"{result.title}: {note}" for note in run.stamp.facts.get("notes", ())]
    return found


def left_out(drawn: Mapping[str, Curve]) -> Iterator[str]:
    """Name what the label curves lack."""
    for backbone, curve in drawn.items():
        for name, reason in curve.failed.items():
            yield f"{name} on {backbone} is left out of the label curve, for it failed: {reason}"


def sentence(answer: Answer, verdict: Verdict, gain: Pair | None, undecidable: str) -> str:
    """Say the answer with its numbers; and why, where it cannot be told."""
    head, metric = verdict.of(verdict.best_head), verdict.metric
    best_one = f"The best frozen head, {head.title}, reaches {head.test[metric].value:.1%} test {_words(metric)}"
    best_one += _balanced(verdict, head)
    if len(verdict.results) == 1:
        return f"{best_one}. It is the only run, so there is nothing to compare it with."
    if gain is None:
        return f"{best_one}. No fine-tuned plan was run, so whether fine-tuning would pay cannot be told."
    plan, found = verdict.of(gain.first), gain.difference
    change = f"{found.value * 100:+.1f} points [{found.low * 100:+.1f}, {found.high * 100:+.1f}]"
    change += _balanced(verdict, plan, "to ")
    shown = undecidable or f"{_differing(verdict, gain)}, which cannot show a difference this small"
    ending = {
        "keep the frozen head": "Keep the frozen head.",
        "fine-tune": "Fine-tune.",
        "cannot tell": f"{shown}: fine-tuning has not been shown to pay.",
    }[answer]
    return f"{best_one}; fine-tuning ({plan.title}) changes that by {change} for {effort(plan, head)}. {ending}"


def _differing(verdict: Verdict, gain: Pair) -> str:
    images = sum(verdict.test_images.values())
    if verdict.test_groups is None:
        differing = gain.only_first_right + gain.only_second_right
        return f"Only one of the two is right on {differing} of the {images} test images"
    groups = f"{gain.differing_groups} of the {verdict.test_groups} groups"
    return f"The two differ on {groups} that the {images} test images come from"


def _balanced(verdict: Verdict, result: Result, before: str = "") -> str:
    """Return, in brackets, what a score hides where the classes are unequal."""
    value = verdict.balanced(result)
    return "" if value is None else f" ({before}{value:.1%} balanced accuracy)"


def _words(metric: str) -> str:
    return metric.replace("_", " ")
