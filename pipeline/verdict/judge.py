"""From finished runs to the verdict: every run scored on the same test images, all pairs, cost, and one answer.

The answer compares one frozen head with one fine-tuned plan, both chosen by their validation score, so that the test
images decide nothing but the answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.core import stamps
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.core.params import Params
from pipeline.embeddings import matrix, skipped
from pipeline.evaluation import clusters, comparison, curves, decisions, efficiency, pairs, runs, surveys
from pipeline.evaluation.comparison import Estimate, Resampled
from pipeline.evaluation.curves import Curve
from pipeline.evaluation.decisions import Rule
from pipeline.evaluation.groups import FEWEST, Units
from pipeline.evaluation.pairs import Pair
from pipeline.evaluation.runs import Run
from pipeline.evaluation.scoring import metrics, predictions
from pipeline.evaluation.scoring.predictions import Predictions
from pipeline.evaluation.surveys import Survey
from pipeline.verdict import summary
from pipeline.verdict.schema import Answer, Detectable, Result, Verdict, effort

INTERVAL = {"accuracy": "Newcombe's score interval for paired proportions"}
RULE = (
    "The head and the plan with the best validation {metric} are compared on the test images. If the 95% interval of "
    "plan minus head ({interval}) lies below the margin of {margin:.1f} points: keep the frozen head. Else, if it lies "
    "above zero: fine-tune. Else: cannot tell."
)
UNBOUNDED = ("log_loss", "brier", "cost")
"""Metrics that may be above one; none is below zero."""
RULE_OF_GROUPS = f" Interval and test take whole groups of test images; fewer than {FEWEST} groups give no answer."


@dataclass(frozen=True)
class Scored:
    """R runs, decided by their rules and scored on the same test images."""

    metric: str
    """What was chosen by, and what pairs are compared in."""
    finished: Sequence[Run]
    rules: Sequence[Rule | None]
    decided: Sequence[Predictions]
    """Validation and test."""
    validation: Sequence[Mapping[str, float]]
    plain: Sequence[Mapping[str, float]]
    """Metrics on test; NaN where its images do not define one."""
    resampled: Resampled
    pairs: Sequence[Pair]
    group_of: Mapping[str, str]
    """image_id -> patient, module or session; empty or absent where there is none."""

    @property
    def units(self) -> Units:
        """Return which test images belong together."""
        return self.resampled.units

    @cached_property
    def test(self) -> list[Predictions]:
        """Return the test rows of every run."""
        return [one.of("test") for one in self.decided]


@dataclass(frozen=True)
class Background:
    """What is known of each backbone, by its name, besides the runs on it."""

    frozen: Mapping[str, Cost]
    """What the embeddings cost."""
    skipped: Mapping[str, Mapping[str, str]]
    """Images that could not be decoded, and why."""
    drawn: Mapping[str, Curve]
    """Decisions by number of labels."""
    surveys: Mapping[str, Survey]


def score(finished: Sequence[Run], params: Params, group_of: Mapping[str, str]) -> Scored:
    """Decide and score runs on their test rows, and compare all pairs of them.

    Args:
        finished: the runs.
        params: rule of decision, metric, resamples and seed.
        group_of: image_id -> group, of at least the test images that have one.

    Raises:
        StateError: if runs were made on different test images.

    """
    metric, costs = params.selection.metric, params.compare.costs
    predictions.require_same_images({run.id: run.predictions.of("test") for run in finished})
    rules = [decisions.rule_for(run.predictions, params) for run in finished]
    decided = [
        rule.apply(run.predictions) if rule else run.predictions for run, rule in zip(finished, rules, strict=True)
    ]
    validation = [
        metrics.score(one.of("val")) if rule else found
        for rule, one, found in zip(rules, decided, map(runs.read_metrics, finished), strict=True)
    ]
    test = {run.id: one.of("test") for run, one in zip(finished, decided, strict=True)}
    classes = decided[0].classes
    extra = {"cost": decisions.mean_cost(decisions.cost_matrix(costs, classes))} if costs else {}
    plain = [metrics.plain(one, extra) for one in test.values()]
    units = Units.by_group(next(iter(test.values())).image_id, group_of)
    resampled = comparison.bootstrap(list(test.values()), params.compare.bootstrap, params.seed, extra, units)
    found = pairs.compare(test, resampled.metrics[metric], [one[metric] for one in plain], metric, units)
    return Scored(metric, finished, rules, decided, validation, plain, resampled, found, group_of)


def judge(scored: Scored, background: Background, params: Params) -> Verdict:
    """Answer the question.

    Args:
        scored: every run listed in params.
        background: for every backbone listed in params.
        params: metric, margin, resamples and seed.

    Raises:
        StateError: if no head is among the runs, or one was made by an earlier version.

    """
    metric, margin = params.selection.metric, params.compare.margin
    head, plan = best(scored, "head", metric), best(scored, "plan", metric)
    if head is None:
        raise StateError("params.yaml: run.heads: no head was trained, nothing to compare with")
    results = _on_front([_result(scored, number, background) for number in range(len(scored.finished))], metric)
    test = scored.test[0]
    verdict = Verdict(
        answer="cannot tell",
        sentence="",
        rule=_rule(scored, margin),
        metric=metric,
        margin=margin,
        resamples=comparison.affordable(len(test.label), params.compare.bootstrap),
        test_images=dict(
            zip(test.classes, np.bincount(test.truth(), minlength=len(test.classes)).tolist(), strict=True)
        ),
        test_groups=scored.units.number if scored.units.grouped else None,
        best_head=results[head].run,
        best_plan=results[plan].run if plan is not None else None,
        results=results,
        pairs=scored.pairs,
        detectable=_detectable(scored, results, head, plan),
        standing=[],
        skipped=background.skipped,
        transferability={backbone: survey.scores for backbone, survey in background.surveys.items()},
        curves={
            backbone: efficiency.judge(curve, metric, params.compare.bootstrap, params.seed, scored.group_of)
            for backbone, curve in background.drawn.items()
            if curve.points
        },
        inputs=_inputs(scored.finished, background.frozen),
        notes=[
            *_notes(scored, results),
            *_left_out(background.drawn),
            *comparison.shortcuts(
                len(test.label),
                len(test.classes),
                params.compare.bootstrap,
                ranked=any(one.said.ranks for one in scored.test),
            ),
        ],
    )
    gain = verdict.pair(verdict.best_plan, verdict.best_head) if verdict.best_plan else None
    undecidable = _undecidable(verdict.test_groups, gain, margin)
    answer = "cannot tell" if undecidable else answer_of(gain.difference if gain else None, margin)
    verdict = replace(verdict, answer=answer, sentence=_sentence(answer, verdict, gain, undecidable))
    return replace(verdict, standing=summary.standing(verdict))


def best(scored: Scored, kind: str, metric: str) -> int | None:
    """Return the number of the head, or of the plan, with the best validation score, the first of equals."""
    of_kind = [number for number, run in enumerate(scored.finished) if run.kind == kind]
    return max(of_kind, key=lambda number: scored.validation[number][metric], default=None)


def answer_of(gain: Estimate | None, margin: float) -> Answer:
    """Apply the rule to plan minus head; None where there is no plan."""
    if gain is None:
        return "cannot tell"
    if gain.high < margin:
        return "keep the frozen head"
    return "fine-tune" if gain.low > 0 else "cannot tell"


def _rule(scored: Scored, margin: float) -> str:
    interval = INTERVAL.get(scored.metric, "paired bootstrap")
    rule = RULE.format(metric=_words(scored.metric), interval=interval, margin=margin * 100)
    return rule + RULE_OF_GROUPS if scored.units.grouped else rule


def _undecidable(groups: int | None, gain: Pair | None, margin: float) -> str:
    """Say why so few groups cannot tell what the interval would tell; empty if they can."""
    if groups is None or gain is None:
        return ""
    if groups < FEWEST:
        named = "1 group" if groups == 1 else f"{groups} groups"
        return f"The test images come from {named}, and fewer than {FEWEST} cannot show anything"
    differing = gain.differing_groups or 0
    if answer_of(gain.difference, margin) == "fine-tune" and differing < FEWEST:
        return f"The two differ on {differing} of {groups} groups, and fewer than {FEWEST} cannot show which is better"
    return ""


def estimates(scored: Scored, number: int) -> dict[str, Estimate]:
    """Return a run's test metrics with their intervals: those that the test images define."""
    samples = {name: values[number] for name, values in scored.resampled.metrics.items()}
    return {
        name: Estimate(value, *_interval(scored, number, name))
        for name, value in scored.plain[number].items()
        if np.isfinite(value) and comparison.enough(samples[name])
    }


def _interval(scored: Scored, number: int, metric: str) -> tuple[float, float]:
    units, test = scored.units, scored.test[number]
    samples, value = scored.resampled.metrics[metric][number], scored.plain[number][metric]
    low, high = clusters.sampled_interval(value, samples, units, metrics.weight(metric, test.truth()))
    sampled = (max(low, 0.0), high if metric in UNBOUNDED else min(high, 1.0)) if units.grouped else (low, high)
    if units.grouped and metric == "accuracy":
        return clusters.wider(sampled, clusters.accuracy_interval(test.right(), units))
    return sampled


def cost_of(run: Run, frozen: Cost) -> Cost:
    """Return a run's cost from images to predictions: a head's with that of the embeddings, which it began with."""
    return run.cost + frozen if run.kind == "head" else run.cost


def seconds_per_1000(run: Run, frozen: Cost) -> float | None:
    """Return what predicting 1,000 images takes, if it was timed; a head's begins with the frozen pass over them."""
    if "prediction" not in run.stamp.facts:
        return None
    alone = float(run.stamp.facts["prediction"]["seconds_per_1000"])
    if run.kind == "plan":
        return alone
    return alone + 1000 * frozen.running_seconds / frozen.running_images if frozen.running_images else None


def _result(scored: Scored, number: int, background: Background) -> Result:
    run, rule = scored.finished[number], scored.rules[number]
    frozen = background.frozen[run.backbone]
    return Result(
        backbone=run.backbone,
        name=run.name,
        kind=run.kind,
        title=run.name if len(background.frozen) == 1 else f"{run.name} on {run.backbone}",
        validation=scored.validation[number],
        test=estimates(scored, number),
        cost=cost_of(run, frozen),
        device=str(_fact(run, "device")),
        bytes_on_disk=_bytes_on_disk(run),
        seconds_per_1000=seconds_per_1000(run, frozen),
        on_front=False,
        detail=comparison.describe(scored.test[number], scored.resampled, number),
        threshold=rule.threshold if rule else None,
    )


def _fact(run: Run, name: str) -> Any:  # noqa: ANN401  # whatever JSON can hold
    with stamps.requiring_facts(runs.stamp_path(run.backbone, run.name)):
        return run.stamp.facts[name]


def _bytes_on_disk(run: Run) -> int:
    embeddings = matrix.matrix_path(run.backbone).stat().st_size if run.kind == "head" else 0
    return int(_fact(run, "bytes_on_disk")) + int(run.stamp.facts.get("stored_bytes", 0)) + embeddings


def _on_front(results: Sequence[Result], metric: str) -> list[Result]:
    """Mark the results that no other one beats in score or CPU time without being worse in the other."""
    at = [(result.test[metric].value, -result.cost.cpu_seconds) for result in results]

    def beaten(mine: tuple[float, float]) -> bool:
        return any(other != mine and other[0] >= mine[0] and other[1] >= mine[1] for other in at)

    return [replace(result, on_front=not beaten(mine)) for result, mine in zip(results, at, strict=True)]


def _detectable(scored: Scored, results: Sequence[Result], head: int, plan: int | None) -> Detectable | None:
    """Say what the images could have shown between best plan and best head; without a plan, of the pair most apart."""
    if not scored.pairs:
        return None
    wanted = {results[head].run, results[plan].run} if plan is not None else None
    pair = max(
        scored.pairs, key=lambda one: ({one.first, one.second} == wanted, one.only_first_right + one.only_second_right)
    )
    test = {run.id: one for run, one in zip(scored.finished, scored.test, strict=True)}
    difference = pairs.detectable(test[pair.first], test[pair.second], scored.units)
    discordant = pair.only_first_right + pair.only_second_right
    return Detectable(difference, (pair.first, pair.second), discordant, pairs.POWER, pairs.LEVEL)


def _inputs(finished: Sequence[Run], backbones: Mapping[str, Cost]) -> dict[str, str]:
    of_backbone = (matrix.stamp_path, matrix.cost_path, skipped.path_of, curves.stamp_path, curves.path_of,
                   surveys.stamp_path, surveys.path_of)  # fmt: skip
    of_runs = {path: sha256 for run in finished for path, sha256 in _inputs_of_run(run).items()}
    return of_runs | stamps.hashes(path(name) for name in backbones for path in of_backbone)


def _inputs_of_run(run: Run) -> dict[str, str]:
    stamp = runs.stamp_path(run.backbone, run.name)
    wanted = (predictions.path_of(run.backbone, run.name), runs.metrics_path(run.backbone, run.name))
    return {stamp.as_posix(): stamps.sha256_file(stamp)} | {
        path.as_posix(): run.stamp.outputs[path.as_posix()] for path in wanted
    }


def _notes(scored: Scored, results: Sequence[Result]) -> list[str]:
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


def _left_out(drawn: Mapping[str, Curve]) -> Iterator[str]:
    """Name what the label curves lack."""
    for backbone, curve in drawn.items():
        for name, reason in curve.failed.items():
            yield f"{name} on {backbone} is left out of the label curve, for it failed: {reason}"


def _sentence(answer: Answer, verdict: Verdict, gain: Pair | None, undecidable: str) -> str:
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
