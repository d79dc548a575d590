"""Galleries: the worst errors of the best head and plan, and the images that only one of them gets right."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.words import counted
from pipeline.evaluation.scoring.predictions import Predictions
from pipeline.report.evidence import Evidence

MOST = 12
"""Images in a gallery."""


@dataclass(frozen=True)
class RunDecision:
    """The decision of a run about an image."""

    title: str
    decided: str
    percent: int
    """The probability of the decided class."""
    right: bool


@dataclass(frozen=True)
class GalleryImage:
    """One image of a gallery."""

    image_id: str
    label: str
    source: str | None
    """A data URI; None if the image has no thumbnail."""
    decisions: Sequence[RunDecision]


@dataclass(frozen=True)
class Gallery:
    """Test images of one kind, the most striking ones first."""

    title: str
    found: int
    """How many test images are of this kind; only the first are shown."""
    found_in_words: str
    """The same with its noun."""
    pictures: Sequence[GalleryImage]


def galleries(evidence: Evidence) -> list[Gallery]:
    """Return the worst errors of the best head and the best plan, and where only one of the two is right."""
    verdict = evidence.verdict
    best = [run for run in (verdict.best_head, verdict.best_plan) if run is not None]
    runs = [(verdict.of(run).title, evidence.decided_by(run).of("test")) for run in best]
    right = [one.decision() == one.truth() for _, one in runs]
    found = [
        _gallery(f"The worst errors of {title}", "error", evidence, runs, ~mine, _excess_confidence(one))
        for (title, one), mine in zip(runs, right, strict=True)
    ]
    if len(runs) == 2:
        (head, of_head), (plan, of_plan) = runs
        found += [
            _gallery(
                f"{head} right, {plan} wrong",
                "such image",
                evidence,
                runs,
                right[0] & ~right[1],
                _excess_confidence(of_plan),
            ),
            _gallery(
                f"{plan} right, {head} wrong",
                "such image",
                evidence,
                runs,
                right[1] & ~right[0],
                _excess_confidence(of_head),
            ),
        ]
    return found


def _excess_confidence(predictions: Predictions) -> np.ndarray:
    """Return by how much the probability of the decided class exceeds that of the true class, (N,)."""
    return predictions.of_decision() - predictions.probabilities.of_truth


def _gallery(
    title: str,
    noun: str,
    evidence: Evidence,
    runs: Sequence[tuple[str, Predictions]],
    chosen: np.ndarray,
    order: np.ndarray,
) -> Gallery:
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(-order[rows], kind="stable")]
    place = {image_id: number for number, image_id in enumerate(evidence.thumbnails.image_id)}
    shown = [_gallery_image(row, evidence, place, runs) for row in rows[:MOST].tolist()]
    return Gallery(title, len(rows), counted(len(rows), noun), shown)


def _gallery_image(
    row: int, evidence: Evidence, place: dict[str, int], runs: Sequence[tuple[str, Predictions]]
) -> GalleryImage:
    _, first = runs[0]
    image_id = first.image_id[row]
    source = data_uri(evidence.thumbnails.pictures[place[image_id]]) if image_id in place else None
    decisions = []
    for title, one in runs:
        decided = int(one.decision()[row])
        percent = round(100 * float(one.of_decision()[row]))
        decisions.append(RunDecision(title, one.classes[decided], percent, one.classes[decided] == one.label[row]))
    return GalleryImage(image_id, first.label[row], source, decisions)


def data_uri(webp: bytes) -> str:
    """Return a picture as a data URI, which needs no other file."""
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"
