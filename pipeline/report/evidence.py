"""What the page shows: the verdict, and the images and decisions behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.core.stamps import Stamp
from pipeline.data.images.thumbnails import Thumbnails
from pipeline.data.manifest import Manifest
from pipeline.evaluation.runs import Run
from pipeline.evaluation.scoring.predictions import Predictions
from pipeline.evaluation.surveys import Survey
from pipeline.quality.files import Findings
from pipeline.verdict.schema import Verdict


@dataclass(frozen=True)
class Evidence:
    """All that a section may look at."""

    verdict: Verdict
    finished: Sequence[Run]
    """In the order of the verdict's results."""
    decided: Sequence[Predictions]
    """Of validation and test images, for each of them."""
    table: Manifest
    surveys: Mapping[str, Survey]
    """backbone -> where its images lie on the map."""
    embedded: Mapping[str, Stamp]
    """backbone -> the stamp of its embeddings."""
    thumbnails: Thumbnails
    quality: Findings = field(default_factory=dict)
    """check -> what it found, as reports/quality.json has it."""

    def decided_by(self, run: str) -> Predictions:
        """Return what a run decides."""
        return next(one for result, one in zip(self.verdict.results, self.decided, strict=True) if result.run == run)
