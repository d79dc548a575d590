"""The checks' input and results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.manifest import Manifest
from pipeline.evaluation.projection import Features
from pipeline.quality import components, copies, labels, signatures

Ints = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]
Pair = tuple[int, int, float]
"""Two rows of the manifest, ascending, and their similarity."""

NEIGHBOURS = 10
"""Nearest images, by which labels and distances are judged."""


@dataclass(frozen=True)
class Material:
    """N decodable images, and what several checks need of them, computed once."""

    table: Manifest
    row: Ints
    """(N,) of the manifest."""
    features: Features
    """(N, D) embeddings."""
    signatures: signatures.Parts
    near_duplicate: float
    """The least similarity of near-duplicates' pixels."""
    seed: int
    progress: Callable[[str], object] = id
    """Called with the name of each slow step."""

    @cached_property
    def target(self) -> Ints:
        """Return each image's class, as its index in the manifest's classes: (N,)."""
        return np.searchsorted(self.table.classes, np.array(self.table.label)[self.row])

    @cached_property
    def components(self) -> npt.NDArray[np.float32]:
        """Return the embeddings' principal components: (N, up to 256)."""
        self.progress("components")
        return components.of(self.features, self.seed)

    @cached_property
    def nearest(self) -> tuple[Ints, Floats]:
        """Return the nearest other images in those components and the distances to them: (N, up to 10) both."""
        rows = self.components
        self.progress("neighbours")
        return components.nearest(rows, min(NEIGHBOURS, len(self.row) - 1))

    @cached_property
    def probability(self) -> npt.NDArray[np.float64]:
        """Return class probabilities from a classifier that was not fitted to the image: (N, K)."""
        rows = self.components
        self.progress("labels")
        together = [self.table.group[at] or self.table.sha256[at] for at in self.row]
        return labels.out_of_fold(rows, self.target, together, self.seed)

    @cached_property
    def near_duplicates(self) -> list[Pair]:
        """Return the pairs with different bytes and nearly the same pixels, most similar first."""
        self.progress("near-duplicates")
        pairs, score = copies.find(self.signatures, self.near_duplicate, self.seed)
        rows = np.sort(np.stack([self.row[pairs.first], self.row[pairs.second]]), axis=0)
        found = zip(*rows.tolist(), score.tolist(), strict=True)
        return [pair for pair in found if self.table.sha256[pair[0]] != self.table.sha256[pair[1]]]


@dataclass(frozen=True)
class Finding:
    """One image that a person should look at."""

    row: int
    """Of the manifest."""
    other: int | None = None
    """The row of the image that it resembles."""
    score: float | None = None
    suggestion: str = ""


@dataclass(frozen=True)
class CheckResult:
    """One check's findings, worst first, and the thresholds behind them."""

    findings: Sequence[Finding]
    thresholds: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
