"""The input of the page: the verdict, and the images and decisions behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pipeline.core.stamps import Stamp
from pipeline.data.images.thumbnails import Thumbnails
from pipeline.data.manifest import Manifest
from pipeline.evaluation.runs import FinishedRun
from pipeline.evaluation.scoring.predictions import Predictions
from pipeline.evaluation.surveys import Survey
from pipeline.quality.files import Findings
from pipeline.verdict import data_checks
from pipeline.verdict.schema import Verdict
from pipeline.verdict.wording import notes


@dataclass(frozen=True)
class Evidence:
    """All that a section can show."""

    verdict: Verdict
    finished: Sequence[FinishedRun]
    """In the order of the verdict's results."""
    decided: Sequence[Predictions]
    """For each run, of validation and test images."""
    table: Manifest
    surveys: Mapping[str, Survey]
    """backbone -> its map and scores."""
    embedded: Mapping[str, Stamp]
    """backbone -> the stamp of its embeddings."""
    thumbnails: Thumbnails
    quality: Findings = field(default_factory=dict)
    """check -> its findings, as in reports/quality.json."""

    @cached_property
    def data_notes(self) -> list[str]:
        """Those of the verdict's notes that are about the data."""
        checks = data_checks.read(self.decided[0].of("test").image_id, self.table, self.quality)
        about = {*notes.of_data(checks, self.verdict), *notes.of_classes(self.verdict.test_images)}
        return [note for note in self.verdict.notes if note in about]

    @cached_property
    def search_notes(self) -> list[str]:
        """Those of the verdict's notes that come from the search for hyper-parameters: advice, no warnings."""
        found = set(notes.of_search(self.verdict.results, self.finished))
        return [note for note in self.verdict.notes if note in found]

    def decided_by(self, run: str) -> Predictions:
        """Return the decisions of a run."""
        return next(one for result, one in zip(self.verdict.results, self.decided, strict=True) if result.run == run)
