"""From finished runs to the verdict: every run scored on the same test images, all pairs, cost, and one answer.

The answer compares one frozen head with one fine-tuned plan, both chosen by their validation score, so that the test
images decide nothing but the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.core import stamps
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.core.params import Params
from pipeline.embeddings import matrix, skipped
from pipeline.evaluation import comparison, curves, efficiency, pairs, runs, surveys
from pipeline.evaluation.comparison import Estimate
from pipeline.evaluation.curves import Curve
from pipeline.evaluation.runs import Run
from pipeline.evaluation.scoring import predictions
from pipeline.evaluation.surveys import Survey
from pipeline.verdict import summary, wording
from pipeline.verdict.schema import Answer, Detectable, Result, Verdict
from pipeline.verdict.scored import Scored, estimates


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


def background(backbones: Sequence[str]) -> Background:
    """Read it; StateError if something of it is missing or altered."""
    return Background(
        frozen={backbone: matrix.read_cost(backbone) for backbone in backbones},
        skipped={backbone: skipped.read(backbone) for backbone in backbones},
        drawn={backbone: curves.read(backbone) for backbone in backbones},
        surveys={backbone: surveys.read(backbone) for backbone in backbones},
    )


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
        rule=wording.rule(scored, margin),
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
            *wording.notes(scored, results),
            *wording.left_out(background.drawn),
            *comparison.shortcuts(
                len(test.label),
                len(test.classes),
                params.compare.bootstrap,
                ranked=any(one.said.ranks for one in scored.test),
            ),
        ],
    )
    gain = verdict.pair(verdict.best_plan, verdict.best_head) if verdict.best_plan else None
    answer = answer_of(gain.difference if gain else None, margin)
    if undecidable := wording.undecidable(answer, verdict.test_groups, gain):
        answer = "cannot tell"
    verdict = replace(verdict, answer=answer, sentence=wording.sentence(answer, verdict, gain, undecidable))
    return replace(verdict, standing=summary.standing(verdict))


def naming_failed(failed: Mapping[tuple[str, str], str], verdict: Verdict) -> Verdict:
    """Name in a verdict the runs, by backbone and name, that failed, and the files that say so."""
    if not failed:
        return verdict
    named = {"/".join(run): reason for run, reason in failed.items()}
    stamped = stamps.hashes(runs.stamp_path(*run) for run in failed)
    sentence = f"{verdict.sentence} Not judged, for it failed: {', '.join(named)}."
    return replace(verdict, sentence=sentence, failed=named, inputs={**verdict.inputs, **stamped})


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
