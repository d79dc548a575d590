"""The answer in words: the rule, what the best head and plan reach, and why the images may not tell."""

from collections.abc import Sequence

from pipeline.core.errors import first_five
from pipeline.core.printable import printable
from pipeline.core.words import counted
from pipeline.evaluation.groups import FEWEST_GROUPS
from pipeline.evaluation.pairs import Pair
from pipeline.verdict.choices import Choices
from pipeline.verdict.schema import Answer, Result, Verdict
from pipeline.verdict.scored_runs import ScoredRuns
from pipeline.verdict.wording import notes
from pipeline.verdict.wording.terms import metric_name

INTERVALS = {"accuracy": "Newcombe's score interval for paired proportions"}
RULE = (
    "The head and the plan with the best validation {metric}, on {images}, are compared on the test images. "
    "Keep the frozen head if the whole 95% interval of plan minus head ({interval}) lies below the margin of "
    "{margin:.1f} points. Otherwise, fine-tune if the whole interval lies above zero. "
    "Otherwise, the images cannot tell."
)
RULE_WITHOUT_PLAN = (
    "The best frozen head is the one with the best validation {metric}, on {images}; the test images played no part in "
    "that choice. "
    "Without a fine-tuned plan there is nothing to decide: name one under run.plans in params.yaml to learn whether "
    "fine-tuning would pay. Differences between heads have 95% intervals ({interval})."
)
GROUPS_ALONE = " Intervals and tests treat each group of test images as one unit."
RULE_FOR_GROUPS = (
    f" Interval and test treat each group of test images as one unit; fewer than {FEWEST_GROUPS} groups give no answer."
)


def rule(scored: ScoredRuns, margin: float, choices: Choices, *, has_plan: bool) -> str:
    """Say how the answer follows from the interval, or that there is no plan to decide about.

    The margin is a share of the images.
    """
    text, for_groups = (RULE, RULE_FOR_GROUPS) if has_plan else (RULE_WITHOUT_PLAN, GROUPS_ALONE)
    interval, images = INTERVALS.get(scored.metric, "paired bootstrap"), notes.validation_images(choices)
    said = text.format(metric=metric_name(scored.metric), images=images, interval=interval, margin=margin * 100)
    return said + for_groups if scored.units.grouped else said


def too_few_groups(answer: Answer, groups: int | None, gain: Pair | None) -> str:
    """Say why the groups are too few for the answer that the interval alone would give; empty if they are not."""
    if groups is None or gain is None:
        return ""
    if groups < FEWEST_GROUPS:
        return f"The test images come from {counted(groups, 'group')}; fewer than {FEWEST_GROUPS} cannot show anything"
    differing = gain.differing_groups or 0
    if answer == "fine-tune" and differing < FEWEST_GROUPS:
        return (
            f"The two differ on {differing} of {groups} groups; fewer than {FEWEST_GROUPS} cannot show which is better"
        )
    return ""


def sentence(answer: Answer, verdict: Verdict, gain: Pair | None, few_groups: str) -> str:
    """State the answer with its numbers, and the reason where it is "cannot tell"."""
    head, metric = verdict.of(verdict.best_head), verdict.metric
    best = f"The best frozen head, {head.title}, reaches {head.test[metric].value:.1%} test {metric_name(metric)}"
    best += _balanced_accuracy(verdict, head)
    if len(verdict.results) == 1:
        return f"{best}. It is the only run, so there is nothing to compare it with."
    if gain is None:
        return f"{best}. No fine-tuned plan was run, so whether fine-tuning would pay is unknown."
    plan, difference = verdict.of(gain.first), gain.difference
    change = f"{difference.value * 100:+.1f} points [{difference.low * 100:+.1f}, {difference.high * 100:+.1f}]"
    change += _balanced_accuracy(verdict, plan, "to ")
    ending = {
        "keep the frozen head": "Keep the frozen head.",
        "fine-tune": "Fine-tune.",
        "cannot tell": f"{few_groups or _too_few_differences(verdict, gain)}. Fine-tuning has not been shown to pay.",
    }[answer]
    return f"{best}; fine-tuning ({plan.title}) changes that by {change} for {effort(plan, head)}. {ending}"


def _too_few_differences(verdict: Verdict, gain: Pair) -> str:
    images = sum(verdict.test_images.values())
    if verdict.test_groups is None:
        differing = gain.only_first_right + gain.only_second_right
        found = f"Only one of the two is right on {differing} of the {images} test images"
    else:
        groups = f"{gain.differing_groups} of the {verdict.test_groups} groups"
        found = f"The two differ on {groups} that the {images} test images come from"
    return f"{found}, too few to show a difference this small"


def _balanced_accuracy(verdict: Verdict, result: Result, before: str = "") -> str:
    """Return the balanced accuracy in brackets where the classes are unequal."""
    value = verdict.balanced(result)
    return "" if value is None else f" ({before}{value:.1%} balanced accuracy)"


def effort(plan: Result, head: Result) -> str:
    """Say how much more a plan took than a head: in CPU time, or in wall time if a GPU did some of the work."""
    if {plan.device, head.device} == {"cpu"}:
        return f"{plan.cost.cpu_seconds / max(head.cost.cpu_seconds, 1e-9):.1f}x the CPU time"
    return f"{plan.cost.seconds / max(head.cost.seconds, 1e-9):.1f}x the time"


def failures_sentence(failed: Sequence[str]) -> str:
    """Name the runs that failed."""
    return f"Not judged because {'it' if len(failed) == 1 else 'they'} failed: {', '.join(failed)}."


def headline(verdict: Verdict) -> str:
    """Return the answer; without a plan there is no question to answer, so what the best head reaches."""
    if verdict.best_plan:
        return verdict.answer
    head = verdict.of(verdict.best_head)
    score = f"{head.test[verdict.metric].value:.1%} {metric_name(verdict.metric)}"
    balanced = verdict.balanced(head)
    return f"{score}{'' if balanced is None else f', {balanced:.1%} balanced accuracy,'} with frozen features"


def terminal_lines(sentence: str, notes: Sequence[str], where: object) -> str:
    """Return the answer for a terminal: one line with the place of the report, and one for each of the first notes."""
    lines = [f"{sentence} See {where}", *(f"note: {note}" for note in first_five(notes, "notes"))]
    return "\n".join(map(printable, lines))
