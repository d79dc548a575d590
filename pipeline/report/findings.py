"""The findings of the stage `quality` on the page: counts, and thumbnails of the first images of each check."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.report.evidence import Evidence
from pipeline.report.galleries import MOST, data_uri


@dataclass(frozen=True)
class FlaggedImage:
    """An image that a check found."""

    image_id: str
    label: str
    split: str
    source: str
    """A data URI."""
    score: str
    other: str
    """The image that it resembles; empty if there is none."""
    suggestion: str


def check_results(evidence: Evidence) -> list[dict[str, Any]]:
    """Return every check, as in reports/quality.json, with `pictures`: its first images that have a thumbnail."""
    thumbnails = dict(zip(evidence.thumbnails.image_id, evidence.thumbnails.pictures, strict=True))
    return [
        {**check, "pictures": list(_flagged_images(evidence, check, thumbnails))} for check in evidence.quality.values()
    ]


def _flagged_images(
    evidence: Evidence, check: Mapping[str, Any], thumbnails: Mapping[str, bytes]
) -> Iterator[FlaggedImage]:
    shown = [finding for finding in check["findings"] if finding["image_id"] in thumbnails][:MOST]
    for finding in shown:
        image_id, row, score = finding["image_id"], finding["row"], finding["score"]
        yield FlaggedImage(
            image_id=image_id,
            label=evidence.table.label[row],
            split=evidence.table.split[row],
            source=data_uri(thumbnails[image_id]),
            score="" if score is None else f"{score:.4g}",
            other=finding["other"] or "",
            suggestion=finding["suggestion"],
        )
