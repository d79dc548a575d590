"""The three factors that decide between frozen features and fine-tuning: labels, similarity of the tasks, compute."""

from collections.abc import Sequence

from pipeline.core.cost import duration
from pipeline.core.words import counted
from pipeline.evaluation.efficiency import Crossover, CurveScore, LabelEfficiency
from pipeline.evaluation.groups import FEWEST_GROUPS
from pipeline.evaluation.transferability import Transferability
from pipeline.verdict.schema import Factor, Verdict
from pipeline.verdict.wording.answer import effort
from pipeline.verdict.wording.terms import metric_name

TRUST = (
    "These scores rank backbones for one data set; published rank correlations with the accuracy after fine-tuning "
    "range from 0.4 to 0.9. LogME and H-score mean nothing on their own. With a single backbone, only the "
    "nearest-neighbour accuracy can be interpreted, against the share of the largest class."
)


def factors(verdict: Verdict, head_adds: float | None = None) -> list[Factor]:
    """Return a sentence with its numbers on each factor.

    `head_adds`: seconds that the best head itself takes for 1,000 images, after the frozen pass; None if not timed.
    """
    return [
        Factor("Labelled data", _labels(verdict)),
        Factor("Similarity of the tasks", _similarity(verdict)),
        Factor("Compute", _compute(verdict, head_adds)),
    ]


def _labels(verdict: Verdict) -> str:
    if not verdict.curves:
        return "Not measured: no head or plan was trained on parts of the labels (the section curve in params.yaml)."
    return " ".join(_label_curve(backbone, curve, verdict) for backbone, curve in verdict.curves.items())


def _label_curve(backbone: str, curve: LabelEfficiency, verdict: Verdict) -> str:
    where = f" on {backbone}" if len(verdict.curves) > 1 else ""
    steps = [f"{run} {_before(scores[:-1])}{scores[-1].score.value:.1%}" for run, scores in curve.reached.items()]
    labels = sorted({one.labels for scores in curve.reached.values() for one in scores})[-2:]
    numbers = f"from {labels[0]:,} to {labels[1]:,}" if len(labels) == 2 else f"with {labels[0]:,}"
    text = (
        f"With the settings of the section curve in params.yaml, test {metric_name(curve.metric)} {numbers} "
        f"labels{where}: {', '.join(steps)}."
    )
    crossovers = [crossover_sentence(one, curve) for one in curve.crossovers]
    missing = "From how many labels on fine-tuning stays ahead was not measured."
    return " ".join([text, *(crossovers or [missing])])


def _before(earlier: Sequence[CurveScore]) -> str:
    return f"{earlier[-1].score.value:.1%} to " if earlier else ""


def crossover_sentence(crossover: Crossover, curve: LabelEfficiency) -> str:
    """Say from how many labels on a plan stays ahead of the best frozen head, or that it is behind with all labels."""
    if curve.groups is not None and curve.groups < FEWEST_GROUPS:
        return (
            f"The test images come from {counted(curve.groups, 'group')}; fewer than {FEWEST_GROUPS} cannot show from "
            f"how many labels on {crossover.plan} stays ahead."
        )
    if crossover.labels is None:
        return _behind_with_all(crossover, curve)
    tried = [one.labels for one in curve.reached[crossover.plan]]
    least = tried[0]

    def bound(labels: float | None) -> str:
        if labels is None:
            return "beyond your data"
        return f"{least:,} or fewer" if labels <= least else f"{labels:,.0f}"

    return (
        f"{crossover.plan} stays ahead of the best frozen head ({_names(crossover.heads)}) from "
        f"{bound(crossover.labels)} labels on; 95% interval [{bound(crossover.low)}, {bound(crossover.high)}]."
    )


def _behind_with_all(crossover: Crossover, curve: LabelEfficiency) -> str:
    """Say that no number of labels is known from which on the plan stays ahead, and whether that is chance."""
    scores = curve.reached[crossover.plan]
    best = [curve.reached[head][place].score.value for place, head in enumerate(crossover.heads)]
    ahead = [f"{one.labels:,}" for one, other in zip(scores, best, strict=True) if one.score.value > other]
    fewer = f", though it is with {' and '.join(filter(None, [', '.join(ahead[:-1]), ahead[-1]]))}" if ahead else ""
    text = f"{crossover.plan} is not ahead of the best frozen head ({_names(crossover.heads[-1:])}) with all "
    text += f"{scores[-1].labels:,} labels{fewer}"
    if crossover.low is None:
        return f"{text}; nor is it in at least 97.5% of the resamples, so chance hardly explains that."
    return (
        f"{text}; in {crossover.ahead_with_all:.0%} of the resamples it is ahead with all of them, "
        "so the test images do not settle which is better."
    )


def _names(heads: Sequence[str]) -> str:
    return " or ".join(dict.fromkeys(heads))


def _similarity(verdict: Verdict) -> str:
    sentences = [_transferability(backbone, scores) for backbone, scores in verdict.transferability.items()]
    return " ".join([*sentences, TRUST])


def _transferability(backbone: str, scores: Transferability) -> str:
    closed = (scores.knn_accuracy - scores.largest_class) / max(1 - scores.largest_class, 1e-9)
    return (
        f"Before any training, a vote of the {scores.neighbours} nearest neighbours among the {backbone} embeddings "
        f"finds the class of {scores.knn_accuracy:.1%} of {scores.images:,} training images; always naming the largest "
        f"class finds {scores.largest_class:.1%}. The vote closes {max(closed, 0):.0%} of the gap to 100%. "
        f"LogME {scores.logme:.3f}, H-score {scores.h_score:.3f}."
    )


def _compute(verdict: Verdict, head_adds: float | None) -> str:
    head = verdict.of(verdict.best_head)
    text = f"From images to predictions, {head.title} took {duration(head.cost.cpu_seconds)} of CPU time"
    if verdict.best_plan is None:
        return f"{text}; what fine-tuning would cost was not measured (`headswap finetune ... --dry-run` estimates it)."
    plan = verdict.of(verdict.best_plan)
    text = f"{text} and {plan.title} {duration(plan.cost.cpu_seconds)} on {plan.device}: {effort(plan, head)}."
    if head.seconds_per_1000 is None or plan.seconds_per_1000 is None:
        return text
    difference = abs(head.seconds_per_1000 - plan.seconds_per_1000)
    if head.backbone == plan.backbone and difference > (head_adds or 0):
        return (
            f"{text} To predict, both pass an image through {head.backbone} once; their timings differ by more than "
            f"{head.title} adds to that, so they do not show which is faster."
        )
    return (
        f"{text} Predicting 1,000 new images took {head.seconds_per_1000:.1f} s with {head.title} and "
        f"{plan.seconds_per_1000:.1f} s with {plan.title}: wall time, measured when each was trained."
    )
