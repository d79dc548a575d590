"""The verdict: every run scored on the same test images, paired differences, cost, and one answer.

The answer compares one frozen head with one fine-tuned plan, both chosen by their validation score, so that the test
images decide nothing but the answer.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline import runs, stamps
from pipeline.atomic import write_json
from pipeline.cost import Cost
from pipeline.embeddings import matrix
from pipeline.errors import StateError
from pipeline.evaluation import comparison, curves, decisions, efficiency, metrics, predictions
from pipeline.evaluation.comparison import Estimate
from pipeline.evaluation.curves import Curve
from pipeline.evaluation.decisions import Rule
from pipeline.evaluation.efficiency import LabelEfficiency
from pipeline.evaluation.predictions import Floats, Predictions
from pipeline.params import Params
from pipeline.runs import Run

VERDICT = Path("reports/verdict.json")
PAGE = Path("reports/index.html")

# To change the layout of verdict.json: raise this number and note the change in CHANGELOG.md.
SCHEMA_VERSION = 3

Answer = Literal["keep the frozen head", "fine-tune", "cannot tell"]

INTERVAL = {"accuracy": "Newcombe's score interval for paired proportions"}
RULE = (
    "The head and the plan with the best validation {metric} are compared on the test images. If the 95% interval of "
    "plan minus head ({interval}) lies below the margin of {margin:.1f} points: keep the frozen head. Else, if it lies "
    "above zero: fine-tune. Else: cannot tell."
)


@dataclass(frozen=True)
class Difference:
    """A run minus the best frozen head on the same test images."""

    estimate: Estimate
    only_this_right: int
    only_best_head_right: int
    mcnemar_p: float


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    backbone: str
    name: str
    kind: str
    title: str
    """How tables, charts and sentences call it: without the backbone where there is only one."""
    validation: Mapping[str, float]
    test: Mapping[str, Estimate]
    difference: Difference
    cost: Cost
    """From images to predictions; a head's includes the pass that made the embeddings, which all heads share."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """On the test images: precision and recall by class, confusion matrix, accuracy by bin of confidence."""
    threshold: float | None = None
    """Of the second class's probability, where one was chosen on validation."""

    @property
    def run(self) -> str:
        """What `best_head` and `best_plan` call it."""
        return f"{self.backbone}/{self.name}"


@dataclass(frozen=True)
class Verdict:
    """All that the report shows."""

    answer: Answer
    sentence: str
    rule: str
    metric: str
    margin: float
    resamples: int
    test_images: Mapping[str, int]
    """class -> test images"""
    best_head: str
    """<backbone>/<head>, by validation score"""
    best_plan: str | None
    results: Sequence[Result]
    skipped: Mapping[str, Mapping[str, str]]
    """backbone -> image_id -> reason"""
    inputs: Mapping[str, str]
    """path -> sha256 of every file this was computed from: stamps, predictions, metrics, costs, curves"""
    curves: Mapping[str, LabelEfficiency] = field(default_factory=dict)
    """backbone -> scores by number of labels, and where a plan gets ahead; empty where nothing was trained for it"""
    schema_version: int = SCHEMA_VERSION


def judge(
    finished: Sequence[Run],
    frozen: Mapping[str, Cost],
    skipped: Mapping[str, Mapping[str, str]],
    drawn: Mapping[str, Curve],
    params: Params,
) -> Verdict:
    """Score the runs on their test rows and answer the question.

    Args:
        finished: every run listed in params, at least one of them a head.
        frozen: backbone -> what the embeddings cost.
        skipped: backbone -> images that could not be decoded.
        drawn: backbone -> decisions by number of labels.
        params: metric, margin, resamples and seed.

    Raises:
        StateError: if runs were made on different test images.

    """
    metric, margin = params.selection.metric, params.compare.margin
    rules = [_rule(run, params) for run in finished]
    decided = [
        rule.apply(run.predictions) if rule else run.predictions for run, rule in zip(finished, rules, strict=True)
    ]
    test = [one.of("test") for one in decided]
    validation = [
        metrics.score(one.of("val")) if rule else runs.read_metrics(run)
        for run, rule, one in zip(finished, rules, decided, strict=True)
    ]
    costs = params.compare.costs
    extra = {"cost": decisions.mean_cost(decisions.cost_matrix(costs, test[0].classes))} if costs else {}
    plain = [metrics.score(one, extra) for one in test]
    resampled = comparison.bootstrap(test, params.compare.bootstrap, params.seed, extra)

    def best(kind: str) -> int | None:
        of_kind = [number for number, run in enumerate(finished) if run.kind == kind]
        return max(of_kind, key=lambda number: validation[number][metric], default=None)

    head, plan = best("head"), best("plan")
    if head is None:
        raise StateError("params.yaml: run.heads: no head was trained, nothing to compare with")
    results = []
    for number, run in enumerate(finished):
        estimates = {
            name: Estimate(plain[number][name], *comparison.interval(resampled.metrics[name][number]))
            for name in plain[number]
        }
        gain = plain[number][metric] - plain[head][metric]
        samples = resampled.metrics[metric][number] - resampled.metrics[metric][head]
        difference = _difference(test[number], test[head], metric, gain, samples)
        cost = _cost(run, frozen[run.backbone])
        title = run.name if len(frozen) == 1 else f"{run.name} on {run.backbone}"
        detail, rule = comparison.describe(test[number], resampled, number), rules[number]
        threshold = rule.threshold if rule else None
        scores = (validation[number], estimates, difference)
        results.append(Result(run.backbone, run.name, run.kind, title, *scores, cost, detail, threshold))
    answer = _answer(results[plan].difference.estimate if plan is not None else None, margin)
    return Verdict(
        answer=answer,
        sentence=_sentence(answer, results[head], results[plan] if plan is not None else None, metric),
        rule=RULE.format(
            metric=metric.replace("_", " "), interval=INTERVAL.get(metric, "paired bootstrap"), margin=margin * 100
        ),
        metric=metric,
        margin=margin,
        resamples=params.compare.bootstrap,
        test_images={name: list(test[0].label).count(name) for name in test[0].classes},
        best_head=results[head].run,
        best_plan=results[plan].run if plan is not None else None,
        results=results,
        skipped=skipped,
        curves={
            backbone: efficiency.judge(curve, metric, params.compare.bootstrap, params.seed)
            for backbone, curve in drawn.items()
            if curve.points
        },
        inputs={path: sha256 for run in finished for path, sha256 in _inputs(run).items()}
        | stamps.hashes(path(name) for name in frozen for path in (matrix.stamp_path, matrix.cost_path))
        | stamps.hashes(path(name) for name in drawn for path in (curves.stamp_path, curves.path_of)),
    )


def _rule(run: Run, params: Params) -> Rule | None:
    compare = params.compare
    return decisions.choose(run.predictions.of("val"), compare.decision, compare.costs, params.selection.metric)


def _difference(run: Predictions, best_head: Predictions, metric: str, gain: float, samples: Floats) -> Difference:
    bounds = (
        comparison.paired_accuracy_interval(run, best_head) if metric == "accuracy" else comparison.interval(samples)
    )
    return Difference(Estimate(gain, *bounds), *comparison.mcnemar(run, best_head))


def _cost(run: Run, frozen: Cost) -> Cost:
    """Return a run's cost from images to predictions: with that of the embeddings, where it began with them."""
    embedded = run.kind == "head" or run.stamp.facts["params"].get("start") == "logistic"
    return run.cost + frozen if embedded else run.cost


def _inputs(run: Run) -> dict[str, str]:
    stamp = runs.stamp_path(run.backbone, run.name)
    wanted = (predictions.path_of(run.backbone, run.name), runs.metrics_path(run.backbone, run.name))
    return {stamp.as_posix(): stamps.sha256_file(stamp)} | {
        path.as_posix(): run.stamp.outputs[path.as_posix()] for path in wanted
    }


def _answer(gain: Estimate | None, margin: float) -> Answer:
    if gain is None:
        return "cannot tell"
    if gain.high < margin:
        return "keep the frozen head"
    return "fine-tune" if gain.low > 0 else "cannot tell"


def _sentence(answer: Answer, head: Result, plan: Result | None, metric: str) -> str:
    best = f"The best frozen head, {head.title}, reaches {head.test[metric].value:.1%} test {metric.replace('_', ' ')}"
    if plan is None:
        return f"{best}. No fine-tuned plan was run, so whether fine-tuning would pay cannot be told."
    gain = plan.difference.estimate
    ratio = plan.cost.cpu_seconds / max(head.cost.cpu_seconds, 1e-9)
    change = f"{gain.value * 100:+.1f} points [{gain.low * 100:+.1f}, {gain.high * 100:+.1f}]"
    differing = plan.difference.only_this_right + plan.difference.only_best_head_right
    ending = {
        "keep the frozen head": "Keep the frozen head.",
        "fine-tune": "Fine-tune.",
        "cannot tell": f"Only one of the two is right on {differing} images, which is too few to tell: "
        "fine-tuning has not been shown to pay.",
    }[answer]
    return f"{best}; fine-tuning ({plan.title}) changes that by {change} for {ratio:.1f}x the compute. {ending}"


def write(verdict: Verdict) -> None:
    """Write reports/verdict.json."""
    write_json(VERDICT, asdict(verdict))


def read_inputs() -> dict[str, str]:
    """Return path -> sha256 of what the verdict was computed from; StateError if there is no verdict."""
    try:
        content: dict[str, Any] = json.loads(VERDICT.read_bytes())
        return dict(content["inputs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"{VERDICT}: missing or not a verdict; run `dvc repro`") from error
