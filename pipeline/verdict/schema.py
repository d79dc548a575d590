"""The verdict as reports/verdict.json holds it and the report shows it; docs/verdict.md describes every field."""

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
"""The stamp of these files and of the plots."""

# To change the layout of verdict.json: raise this number, describe the change in docs/verdict.md and CHANGELOG.md.
SCHEMA_VERSION = 5

MOST_UNEQUAL, LEAST_UNEQUAL = 1.5, 0.5
"""Classes are unequal if one has more than the first, or less than the second, of an equal share of the test images."""
BALANCED = "balanced_accuracy"

Answer = Literal["keep the frozen head", "fine-tune", "cannot tell"]


@dataclass(frozen=True)
class Result:
    """The result of one run: a line of the table."""

    backbone: str
    name: str
    kind: str
    """"head" or "plan"."""
    title: str
    """Its name in tables, charts and sentences: without the backbone if there is only one."""
    validation: Mapping[str, float]
    test: Mapping[str, Estimate]
    """By metric; metrics that the test images do not define are left out, and `notes` says so."""
    cost: Cost
    """From images to predictions; a head's includes the pass that made the embeddings, which all heads share."""
    device: str
    bytes_on_disk: int
    """The model and its training inputs besides the images: embeddings, or the stored output of the frozen part."""
    seconds_per_1000: float | None
    """To predict 1,000 new images, from files to probabilities; None if it could not be timed."""
    on_front: bool
    """Whether no other run scores as well for less CPU time, or better for as much (Pareto)."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """On the test images: precision and recall by class, confusion matrix, accuracy by bin of confidence."""
    threshold: float | None = None
    """On the probability of the second of two classes, if one was chosen on validation."""

    @property
    def run(self) -> str:
        """Its name in `best_head`, `best_plan` and `pairs`."""
        return f"{self.backbone}/{self.name}"


@dataclass(frozen=True)
class DetectableDifference:
    """The smallest difference that the test images would show."""

    difference: float | None
    """In accuracy, at this power and level; None if there are too few images for any."""
    between: tuple[str, str]
    """The two runs that it was computed from."""
    discordant: int
    """Images that only one of the two gets right."""
    power: float
    level: float


@dataclass(frozen=True)
class Factor:
    """One of the three factors that decide between frozen features and fine-tuning."""

    subject: str
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """The content of verdict.json."""

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
    detectable: DetectableDifference | None
    """None if there is a single run."""
    standing: Sequence[Factor]
    skipped: Mapping[str, Mapping[str, str]]
    """backbone -> image_id -> reason"""
    inputs: Mapping[str, str]
    """path -> sha256 of every file that it was computed from"""
    transferability: Mapping[str, Transferability]
    """backbone -> scores of its embeddings, before any head is trained"""
    curves: Mapping[str, LabelEfficiency] = field(default_factory=dict)
    """backbone -> scores by number of labels and crossovers; empty if nothing was trained for the curve"""
    test_groups: int | None = None
    """Patients, modules or sessions of the test images, the units of intervals and tests; None: the images are."""
    notes: Sequence[str] = ()
    """What a reader must know about the data and the runs; notes that could change the answer come first."""
    data: Mapping[str, float] = field(default_factory=dict)
    """The findings of the data checks in numbers: leaks across splits, label conflicts, sizes of classes."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """run -> why it could not be made; such a run is in no other field."""
    schema_version: int = SCHEMA_VERSION

    @property
    def unequal(self) -> bool:
        """Whether some class has more than 1.5 times an equal share of the test images, or less than half of one."""
        equal = sum(self.test_images.values()) / len(self.test_images)
        most, least = max(self.test_images.values()), min(self.test_images.values())
        return most > MOST_UNEQUAL * equal or least < LEAST_UNEQUAL * equal

    def balanced(self, result: Result) -> float | None:
        """Return a result's balanced accuracy, to show beside its score, if the classes are unequal."""
        if not self.unequal or self.metric == BALANCED or BALANCED not in result.test:
            return None
        return result.test[BALANCED].value

    def of(self, run: str) -> Result:
        """Return the result of a run."""
        return next(result for result in self.results if result.run == run)

    def pair(self, first: str, second: str) -> Pair:
        """Return the pair "first minus second"."""
        return next(
            pair if pair.first == first else pair.reversed()
            for pair in self.pairs
            if {pair.first, pair.second} == {first, second}
        )


def write(verdict: Verdict) -> None:
    """Write reports/verdict.json, and reports/scores.json with its scores alone, for `dvc metrics`."""
    content = asdict(verdict)
    write_json(VERDICT, content)
    write_json(SCORES, scores(content))


def scores(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the numbers of verdict.json that equal runs repeat, few enough for a terminal: no intervals or seconds."""
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
    """Return the content of reports/verdict.json; StateError if it is missing or of another version."""
    try:
        content: dict[str, Any] = json.loads(stamps.read_bytes(VERDICT))
        got = content["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StateError(f"{VERDICT}: not a verdict; run `dvc repro`") from error
    if got != SCHEMA_VERSION:
        raise StateError(f"{VERDICT}: schema_version: got {got}, expected {SCHEMA_VERSION}; run `dvc repro`")
    return content
