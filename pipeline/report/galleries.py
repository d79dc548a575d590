"""Galleries: the test images that say most about two runs."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.scoring.predictions import Predictions
from pipeline.report.evidence import Evidence

MOST = 12
"""Images in a gallery."""


@dataclass(frozen=True)
class Opinion:
    """What a run says of an image."""

    title: str
    decided: str
    percent: int
    """The probability of the class it decides for."""
    right: bool


@dataclass(frozen=True)
class Picture:
    """One image of a gallery."""

    image_id: str
    label: str
    source: str | None
    """A data URI; None where the image is not among those pictured."""
    opinions: Sequence[Opinion]


@dataclass(frozen=True)
class Gallery:
    """Some test images, those that matter most first."""

    title: str
    found: int
    """How many test images there are of the kind."""
    pictures: Sequence[Picture]


def galleries(evidence: Evidence) -> list[Gallery]:
    """Return the worst errors of the best head and the best plan, and where only one of the two is right."""
    verdict = evidence.verdict
    best = [run for run in (verdict.best_head, verdict.best_plan) if run is not None]
    asked = [(verdict.of(run).title, evidence.decided_by(run).of("test")) for run in best]
    right = [one.decision() == one.truth() for _, one in asked]
    found = [
        _gallery(f"The worst errors of {title}", evidence, asked, ~mine, _sure(one))
        for (title, one), mine in zip(asked, right, strict=True)
    ]
    if len(asked) == 2:
        (head, of_head), (plan, of_plan) = asked
        found += [
            _gallery(f"{head} right, {plan} wrong", evidence, asked, right[0] & ~right[1], _sure(of_plan)),
            _gallery(f"{plan} right, {head} wrong", evidence, asked, right[1] & ~right[0], _sure(of_head)),
        ]
    return found


def _sure(predictions: Predictions) -> np.ndarray:
    """Return how much more probable a run takes its decision to be than the truth, (N,)."""
    return predictions.of_decision() - predictions.said.of_truth


def _gallery(
    title: str,
    evidence: Evidence,
    asked: Sequence[tuple[str, Predictions]],
    chosen: np.ndarray,
    order: np.ndarray,
) -> Gallery:
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(-order[rows], kind="stable")]
    place = {image_id: number for number, image_id in enumerate(evidence.thumbnails.image_id)}
    return Gallery(title, len(rows), [_picture(row, evidence, place, asked) for row in rows[:MOST].tolist()])


def _picture(row: int, evidence: Evidence, place: dict[str, int], asked: Sequence[tuple[str, Predictions]]) -> Picture:
    _, first = asked[0]
    image_id = first.image_id[row]
    source = data_uri(evidence.thumbnails.pictures[place[image_id]]) if image_id in place else None
    opinions = []
    for title, one in asked:
        decided = int(one.decision()[row])
        percent = round(100 * float(one.of_decision()[row]))
        opinions.append(Opinion(title, one.classes[decided], percent, one.classes[decided] == one.label[row]))
    return Picture(image_id, first.label[row], source, opinions)


def data_uri(webp: bytes) -> str:
    """Return a picture as a page shows it without another file."""
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"
