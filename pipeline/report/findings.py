"""What the stage `quality` found, as the page shows it: counts, and the first of each kind as pictures."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.report.evidence import Evidence
from pipeline.report.galleries import MOST, data_uri


@dataclass(frozen=True)
class Picture:
    """One image of a finding."""

    image_id: str
    label: str
    split: str
    source: str
    """A data URI."""
    score: str
    other: str
    """The image that it is like; empty where there is none."""
    suggestion: str


@dataclass(frozen=True)
class Kind:
    """What one check found."""

    title: str
    meaning: str
    images: int
    across_splits: int
    note: str
    pictures: list[Picture]


def kinds(evidence: Evidence) -> list[Kind]:
    """Return every check with the first images that it lists and that have a picture."""
    drawn = dict(zip(evidence.thumbnails.image_id, evidence.thumbnails.pictures, strict=True))
    return [
        Kind(
            title=check["title"],
            meaning=check["meaning"],
            images=check["images"],
            across_splits=check["across_splits"],
            note=check["note"],
            pictures=list(_pictures(evidence, check, drawn)),
        )
        for check in evidence.quality.values()
    ]


def _pictures(evidence: Evidence, check: Mapping[str, Any], drawn: Mapping[str, bytes]) -> Iterator[Picture]:
    shown = [finding for finding in check["findings"] if finding["image_id"] in drawn][:MOST]
    for finding in shown:
        image_id, row, score = finding["image_id"], finding["row"], finding["score"]
        yield Picture(
            image_id=image_id,
            label=evidence.table.label[row],
            split=evidence.table.split[row],
            source=data_uri(drawn[image_id]),
            score="" if score is None else f"{score:.4g}",
            other=finding["other"] or "",
            suggestion=finding["suggestion"],
        )
