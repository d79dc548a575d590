"""Where a data set stands on the three things that choose between frozen features and fine-tuning, in numbers."""

from collections.abc import Sequence

from pipeline.core.cost import duration
from pipeline.evaluation import efficiency
from pipeline.evaluation.efficiency import LabelEfficiency, Reached
from pipeline.evaluation.transferability import TRUST, Transferability
from pipeline.verdict.schema import Standing, Verdict, effort


def standing(verdict: Verdict) -> Sequence[Standing]:
    """Return a sentence with its number on each."""
    return [
        Standing("Labelled data", _labels(verdict)),
        Standing("Similarity of the tasks", _similarity(verdict)),
        Standing("Compute", _compute(verdict)),
    ]


def _labels(verdict: Verdict) -> str:
    if not verdict.curves:
        return "Not measured: no head or plan was trained on parts of the labels (the section curve in params.yaml)."
    return " ".join(_of_curve(backbone, curve, verdict) for backbone, curve in verdict.curves.items())


def _of_curve(backbone: str, curve: LabelEfficiency, verdict: Verdict) -> str:
    where = f" on {backbone}" if len(verdict.curves) > 1 else ""
    steps = [f"{run} {_percent(reached[:-1])}{reached[-1].score.value:.1%}" for run, reached in curve.reached.items()]
    labels = sorted({one.labels for reached in curve.reached.values() for one in reached})[-2:]
    text = (
        f"From {' to '.join(f'{number:,}' for number in labels)} labels{where}, "
        "with the settings of the section curve in params.yaml, "
        f"test {curve.metric.replace('_', ' ')} goes: {', '.join(steps)}"
    )
    crossed = [efficiency.sentence(one, curve) for one in curve.crossovers]
    return " ".join([f"{text}.", *(crossed or ["From how many labels on fine-tuning gets ahead was not measured."])])


def _percent(earlier: Sequence[Reached]) -> str:
    return f"{earlier[-1].score.value:.1%} to " if earlier else ""


def _similarity(verdict: Verdict) -> str:
    found = [_of_scores(backbone, scores) for backbone, scores in verdict.transferability.items()]
    return " ".join([*found, TRUST])


def _of_scores(backbone: str, scores: Transferability) -> str:
    closed = (scores.knn_accuracy - scores.largest_class) / max(1 - scores.largest_class, 1e-9)
    return (
        f"Before any training, the {scores.neighbours} nearest neighbours among the {backbone} embeddings find the "
        f"class of {scores.knn_accuracy:.1%} of {scores.images:,} training images, where naming the largest class "
        f"finds {scores.largest_class:.1%}: {max(closed, 0):.0%} of what there is to gain. LogME {scores.logme:.3f}, "
        f"H-score {scores.h_score:.3f}."
    )


def _compute(verdict: Verdict) -> str:
    head = verdict.of(verdict.best_head)
    text = f"From images to predictions {head.title} took {duration(head.cost.cpu_seconds)} of CPU time"
    if verdict.best_plan is None:
        return f"{text}; what fine-tuning would cost was not measured (`headswap finetune ... --dry-run` estimates it)."
    plan = verdict.of(verdict.best_plan)
    text = f"{text}, {plan.title} {duration(plan.cost.cpu_seconds)} on {plan.device}: {effort(plan, head)}."
    if head.seconds_per_1000 is None or plan.seconds_per_1000 is None:
        return text
    return (
        f"{text} A thousand new images take {head.seconds_per_1000:.1f} s with the one and "
        f"{plan.seconds_per_1000:.1f} s with the other."
    )
