"""From scored runs to the verdict: all pairs, cost, and one answer.

The answer compares one frozen head with one fine-tuned plan. Both are chosen by their validation score, so that the
test images decide only the answer.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.core import stamps
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.core.params import Params
from pipeline.data.manifest import Manifest
from pipeline.embeddings import matrix, skipped
from pipeline.evaluation import comparison, curves, details, efficiency, pairs, runs, surveys
from pipeline.evaluation.comparison import Estimate
from pipeline.evaluation.curves import CurveDecisions
from pipeline.evaluation.runs import FinishedRun
from pipeline.evaluation.scoring import predictions
from pipeline.evaluation.surveys import Survey
from pipeline.quality.files import Findings
from pipeline.verdict import choices, data_checks
from pipeline.verdict.schema import Answer, DetectableDifference, Result, Verdict
from pipeline.verdict.scored_runs import ScoredRuns, estimates
from pipeline.verdict.wording import answer as wording
from pipeline.verdict.wording import notes
from pipeline.verdict.wording.factors import factors


@dataclass(frozen=True)
class Background:
    """Facts about each backbone, by its name, besides the runs on it."""

    frozen: Mapping[str, Cost]
    """The cost of the embeddings."""
    skipped: Mapping[str, Mapping[str, str]]
    """Images that could not be decoded, with the reason."""
    curves: Mapping[str, CurveDecisions]
    """Decisions by number of labels."""
    surveys: Mapping[str, Survey]


def background(backbones: Sequence[str]) -> Background:
    """Read the facts about each backbone; StateError if a file is missing or altered."""
    return Background(
        frozen={backbone: matrix.read_cost(backbone) for backbone in backbones},
        skipped={backbone: skipped.read(backbone) for backbone in backbones},
        curves={backbone: curves.read(backbone) for backbone in backbones},
        surveys={backbone: surveys.read(backbone) for backbone in backbones},
    )


def judge(scored: ScoredRuns, background: Background, params: Params) -> Verdict:
    """Answer whether fine-tuning pays, from every run and every backbone that params.yaml lists.

    Raises:
        StateError: if there is no head among the runs, or an earlier version made one of them.

    """
    metric, margin = params.selection.metric, params.compare.margin
    head, plan = best(scored, "head", metric), best(scored, "plan", metric)
    if head is None:
        raise StateError("params.yaml: run.heads: no head was trained, nothing to compare with")
    results = _on_front([_result(scored, number, background) for number in range(len(scored.finished))], metric)
    test, chosen_on = scored.test[0], choices.read(scored)
    verdict = Verdict(
        answer="cannot tell",
        sentence="",
        rule=wording.rule(scored, margin, chosen_on, has_plan=plan is not None),
        metric=metric,
        margin=margin,
        resamples=comparison.affordable_resamples(len(test.label), params.compare.bootstrap),
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
            backbone: efficiency.label_efficiency(curve, metric, params.compare.bootstrap, params.seed, scored.group_of)
            for backbone, curve in background.curves.items()
            if curve.points
        },
        inputs=_inputs(scored.finished, background.frozen),
        notes=[
            *notes.of_choices(chosen_on, params.split),
            *notes.of_runs(scored, results),
            *notes.of_curves(background.curves, params.curve.fractions, params.selection.folds),
            *notes.of_approximations(
                len(test.label),
                len(test.classes),
                params.compare.bootstrap,
                ranked=any(one.probabilities.ranks for one in scored.test),
            ),
        ],
    )
    added = [*notes.of_classes(verdict.test_images), *notes.of_chance(verdict), *verdict.notes]
    verdict = replace(verdict, notes=[*added, *notes.of_search(results, scored.finished)])
    gain = verdict.pair(verdict.best_plan, verdict.best_head) if verdict.best_plan else None
    answer = answer_of(gain.difference if gain else None, margin)
    if few_groups := wording.too_few_groups(answer, verdict.test_groups, gain):
        answer = "cannot tell"
    sentence = wording.sentence(answer, verdict, gain, few_groups)
    return replace(verdict, answer=answer, sentence=sentence, standing=factors(verdict, _alone(scored.finished[head])))


def add_data_checks(verdict: Verdict, tested: Collection[str], table: Manifest, found: Findings) -> Verdict:
    """Add what the data checks found: notes, before all others, and numbers; arguments as in `data_checks.read`."""
    checks = data_checks.read(tested, table, found)
    return replace(verdict, notes=[*notes.of_data(checks, verdict), *verdict.notes], data=checks.numbers(verdict))


def add_failures(verdict: Verdict, failures: Mapping[tuple[str, str], str]) -> Verdict:
    """Add the runs that failed, by backbone and name, with the reasons and the stamps that record them."""
    if not failures:
        return verdict
    failed = {"/".join(run): reason for run, reason in failures.items()}
    recorded = stamps.hashes(runs.stamp_path(*run) for run in failures)
    sentence = f"{verdict.sentence} {wording.failures_sentence(list(failed))}"
    return replace(verdict, sentence=sentence, failed=failed, inputs={**verdict.inputs, **recorded})


def best(scored: ScoredRuns, kind: str, metric: str) -> int | None:
    """Return the number of the run of a kind with the best validation score, the first of equals; None for no run."""
    of_kind = [number for number, run in enumerate(scored.finished) if run.kind == kind]
    return max(of_kind, key=lambda number: scored.validation[number][metric], default=None)


def answer_of(gain: Estimate | None, margin: float) -> Answer:
    """Apply the rule to plan minus head; None if there is no plan."""
    if gain is None:
        return "cannot tell"
    if gain.high < margin:
        return "keep the frozen head"
    return "fine-tune" if gain.low > 0 else "cannot tell"


def cost_of(run: FinishedRun, frozen: Cost) -> Cost:
    """Return the cost of a run from images to predictions; a head's includes the pass that made the embeddings."""
    return run.cost + frozen if run.kind == "head" else run.cost


def seconds_per_1000(run: FinishedRun, frozen: Cost) -> float | None:
    """Return the seconds to predict 1,000 images, None if not timed; a head's include the frozen pass over them."""
    if (alone := _alone(run)) is None:
        return None
    if run.kind == "plan":
        return alone
    return alone + 1000 * frozen.running_seconds / frozen.running_images if frozen.running_images else None


def _alone(run: FinishedRun) -> float | None:
    """Return the seconds that the head itself, or the plan's network, takes for 1,000 images."""
    timed = run.stamp.facts.get("prediction")
    return float(timed["seconds_per_1000"]) if timed else None


def _result(scored: ScoredRuns, number: int, background: Background) -> Result:
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
        detail=details.describe(scored.test[number], scored.resampled, number),
        threshold=rule.threshold if rule else None,
    )


def _fact(run: FinishedRun, name: str) -> Any:  # noqa: ANN401  # whatever JSON can hold
    with stamps.requiring_facts(runs.stamp_path(run.backbone, run.name)):
        return run.stamp.facts[name]


def _bytes_on_disk(run: FinishedRun) -> int:
    embeddings = matrix.matrix_path(run.backbone).stat().st_size if run.kind == "head" else 0
    return int(_fact(run, "bytes_on_disk")) + int(run.stamp.facts.get("stored_bytes", 0)) + embeddings


def _on_front(results: Sequence[Result], metric: str) -> list[Result]:
    """Mark the Pareto front: results for which no other is at least as good in both score and CPU time."""
    points = [(result.test[metric].value, -result.cost.cpu_seconds) for result in results]

    def dominated(point: tuple[float, float]) -> bool:
        return any(other != point and other[0] >= point[0] and other[1] >= point[1] for other in points)

    return [replace(result, on_front=not dominated(point)) for result, point in zip(results, points, strict=True)]


def _detectable(
    scored: ScoredRuns, results: Sequence[Result], head: int, plan: int | None
) -> DetectableDifference | None:
    """Return the detectable difference of best plan and best head; without a plan, of the pair that differs most."""
    if not scored.pairs:
        return None
    wanted = {results[head].run, results[plan].run} if plan is not None else None
    pair = max(
        scored.pairs, key=lambda one: ({one.first, one.second} == wanted, one.only_first_right + one.only_second_right)
    )
    test = {run.id: one for run, one in zip(scored.finished, scored.test, strict=True)}
    difference = pairs.detectable(test[pair.first], test[pair.second], scored.units)
    discordant = pair.only_first_right + pair.only_second_right
    return DetectableDifference(difference, (pair.first, pair.second), discordant, pairs.POWER, pairs.LEVEL)


def _inputs(finished: Sequence[FinishedRun], backbones: Mapping[str, Cost]) -> dict[str, str]:
    of_backbone = (matrix.stamp_path, matrix.cost_path, skipped.path_of, curves.stamp_path, curves.path_of,
                   surveys.stamp_path, surveys.path_of)  # fmt: skip
    of_runs = {path: sha256 for run in finished for path, sha256 in _inputs_of_run(run).items()}
    return of_runs | stamps.hashes(path(name) for name in backbones for path in of_backbone)


def _inputs_of_run(run: FinishedRun) -> dict[str, str]:
    stamp = runs.stamp_path(run.backbone, run.name)
    wanted = (predictions.path_of(run.backbone, run.name), runs.metrics_path(run.backbone, run.name))
    return {stamp.as_posix(): stamps.sha256_file(stamp)} | {
        path.as_posix(): run.stamp.outputs[path.as_posix()] for path in wanted
    }
