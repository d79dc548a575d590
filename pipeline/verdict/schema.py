"""The verdict: what the report shows and reports/verdict.json holds; docs/verdict.md describes every field."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipeline.core import artifacts, stamps
from pipeline.core.atomic import write_json
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.evaluation.comparison import Estimate
from pipeline.evaluation.efficiency import LabelEfficiency
from pipeline.evaluation.pairs import Pair
from pipeline.evaluation.transferability import Transferability

VERDICT, PAGE, SCORES = artifacts.VERDICT.at(), artifacts.PAGE.at(), artifacts.SCORES.at()
STAMP = artifacts.VERDICT.stamp_at()
"""Of all of these, and of the plots."""

# To change the layout of verdict.json: raise this number, describe the change in docs/verdict.md and CHANGELOG.md.
SCHEMA_VERSION = 5

MOST_UNEQUAL, LEAST_UNEQUAL = 1.5, 0.5
"""Of an equal share of the test images."""
BALANCED = "balanced_accuracy"

Answer = Literal["keep the frozen head", "fine-tune", "cannot tell"]


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    backbone: str
    name: str
    kind: str
    """"head" or "plan"."""
    title: str
    """How tables, charts and sentences call it: without the backbone where there is only one."""
    validation: Mapping[str, float]
    test: Mapping[str, Estimate]
    """By metric; those that these test images do not define are left out, and `notes` says so."""
    cost: Cost
    """From images to predictions; a head's includes the pass that made the embeddings, which all heads share."""
    device: str
    bytes_on_disk: int
    """The model, and what it was trained on besides the images: embeddings, or the stored frozen part."""
    seconds_per_1000: float | None
    """To predict 1,000 new images, from files to probabilities; None where it could not be timed."""
    on_front: bool
    """Whether no other run scores as well for less CPU time, or better for as much (Pareto)."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """On the test images: precision and recall by class, confusion matrix, accuracy by bin of confidence."""
    threshold: float | None = None
    """Of the second class's probability, where one was chosen on validation."""

    @property
    def run(self) -> str:
        """What `best_head`, `best_plan` and `pairs` call it."""
        return f"{self.backbone}/{self.name}"


@dataclass(frozen=True)
class Detectable:
    """What the test images could have shown."""

    difference: float | None
    """The smallest true difference in accuracy that they mostly would have; None if they are too few for any."""
    between: tuple[str, str]
    """The runs whose disagreement it was computed from."""
    discordant: int
    """Images that only one of the two gets right."""
    power: float
    level: float


@dataclass(frozen=True)
class Standing:
    """Where this data set stands on one of the things that the choice depends on."""

    subject: str
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """All that the report says in numbers."""

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
    pairs: Sequence[Pair]
    detectable: Detectable | None
    """None where there is a single run."""
    standing: Sequence[Standing]
    skipped: Mapping[str, Mapping[str, str]]
    """backbone -> image_id -> reason"""
    inputs: Mapping[str, str]
    """path -> sha256 of every file this was computed from"""
    transferability: Mapping[str, Transferability]
    """backbone -> scores of its embeddings, before any head is trained"""
    curves: Mapping[str, LabelEfficiency] = field(default_factory=dict)
    """backbone -> scores by number of labels, and where a plan gets ahead; empty where nothing was trained for it"""
    test_groups: int | None = None
    """Patients, modules or sessions of the test images, the unit of intervals and tests; None: each image is one."""
    notes: Sequence[str] = ()
    """What a reader must know of the data or the runs, what could change the answer first."""
    data: Mapping[str, float] = field(default_factory=dict)
    """What the checks know of the data, in numbers: leaks across splits, label conflicts, sizes of classes."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """run -> why it could not be made; it is in no other field."""
    schema_version: int = SCHEMA_VERSION

    @property
    def unequal(self) -> bool:
        """Whether some class has more than 1.5 times an equal share of the test images, or less than half of one."""
        equal = sum(self.test_images.values()) / len(self.test_images)
        most, least = max(self.test_images.values()), min(self.test_images.values())
        return most > MOST_UNEQUAL * equal or least < LEAST_UNEQUAL * equal

    def balanced(self, result: Result) -> float | None:
        """Return the balanced accuracy that is to stand beside a result's score, if the classes are unequal."""
        if not self.unequal or self.metric == BALANCED or BALANCED not in result.test:
            return None
        return result.test[BALANCED].value

    def of(self, run: str) -> Result:
        """Return a run's result."""
        return next(result for result in self.results if result.run == run)

    def pair(self, first: str, second: str) -> Pair:
        """Return first minus second."""
        return next(
            pair if pair.first == first else pair.turned()
            for pair in self.pairs
            if {pair.first, pair.second} == {first, second}
        )


def effort(plan: Result, head: Result) -> str:
    """Word how much more a plan took than a head: in CPU time, or in wall time where a CPU did not do all the work."""
    if {plan.device, head.device} == {"cpu"}:
        return f"{plan.cost.cpu_seconds / max(head.cost.cpu_seconds, 1e-9):.1f}x the CPU time"
    return f"{plan.cost.seconds / max(head.cost.seconds, 1e-9):.1f}x the time"


def write(verdict: Verdict) -> None:
    """Write reports/verdict.json, and reports/scores.json with its scores alone, for `dvc metrics`."""
    content = asdict(verdict)
    write_json(VERDICT, content)
    write_json(SCORES, scores(content))


def scores(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what equal runs repeat of verdict.json, and few enough for a terminal: no intervals and no seconds."""
    best, to_best = content["best_head"], dict[str, float]()
    for pair in content["pairs"]:
        if best in (pair["first"], pair["second"]):
            other, sign = (pair["first"], 1) if pair["second"] == best else (pair["second"], -1)
            to_best[other] = sign * pair["difference"]["value"]
    return {
        "test": {
            f"{one['backbone']}/{one['name']}": one["test"][content["metric"]]["value"] for one in content["results"]
        },
        "to_best_head": to_best,
        "data": content["data"],
        "transferability": {
            backbone: {name: found[name] for name in ("logme", "h_score", "knn_accuracy")}
            for backbone, found in content["transferability"].items()
        },
    }


def read() -> dict[str, Any]:
    """Return the content of reports/verdict.json; StateError if there is none, or one of another version."""
    try:
        content: dict[str, Any] = json.loads(stamps.read_bytes(VERDICT))
        got = content["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StateError(f"{VERDICT}: not a verdict; run `dvc repro`") from error
    if got != SCHEMA_VERSION:
        raise StateError(f"{VERDICT}: schema_version: got {got}, expected {SCHEMA_VERSION}; run `dvc repro`")
    return content
