"""A finished run, ready to use: its head or network, its decision rule, and its training images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline import heads
from pipeline.core import stamps
from pipeline.core.errors import StateError
from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.data.manifest import Manifest
from pipeline.embeddings import matrix, skipped
from pipeline.embeddings.matrix import Embeddings
from pipeline.evaluation import decisions, runs
from pipeline.evaluation.decisions import Rule
from pipeline.evaluation.runs import FinishedRun
from pipeline.heads import inputs
from pipeline.heads.calibration import Calibrated
from pipeline.heads.types import Classifier, Ints

if TYPE_CHECKING:  # a scikit-learn head needs no torch
    from pipeline.finetuning.saving import Model


@dataclass(frozen=True)
class TrainedModel:
    """Either a head or a fine-tuned network, with every byte checked."""

    run: FinishedRun
    head: Classifier | None
    """Predicts from rows of the backbone's embeddings."""
    network: "Model | None"
    """Predicts from images."""
    rule: Rule | None
    """Decides as `compare` does; None for the most probable class."""
    table: Manifest
    embedded: Embeddings
    """The frozen backbone's rows of all N images of the manifest that could be decoded."""
    row: Ints
    """(N,) the manifest's row of each image."""

    @property
    def classes(self) -> Sequence[str]:
        """The order of the columns of probabilities."""
        return self.run.predictions.classes

    @property
    def training(self) -> Ints:
        """The rows of the embeddings that are of training images."""
        return np.flatnonzero(np.array([self.table.split[at] == "train" for at in self.row]))

    def training_features(self) -> npt.NDArray[np.floating]:
        """Return the embeddings of the training images, (n, D), copied into memory."""
        return np.asarray(self.embedded.features[self.training])

    def calibration(self) -> str:
        """Say how the probabilities are calibrated."""
        if self.head is None:
            return "the network's own softmax, not calibrated"
        if isinstance(self.head, Calibrated):
            return f"calibrated on validation images by {self.head.calibrator.method}"
        return f"the head's own, not calibrated (heads.{self.run.name}.calibrate)"


def read(params: Params, what: str) -> TrainedModel:
    """Read a run: <backbone>/<head or plan>, just the head or plan, or its folder.

    Raises:
        InputError: if there is no such run, or several.
        StateError: if one of its files is missing or altered, or its images or embeddings have changed since.

    """
    run = runs.find(what, params, "MODEL")
    with runs.advice_on_unlisted(params, run.backbone, run.name):
        return _read_run(run, params)


def _read_run(run: FinishedRun, params: Params) -> TrainedModel:
    _require_current(run)
    table, embedded = manifest.read(), matrix.read(run.backbone)
    matrix.require_recipe(embedded, run.backbone, params)
    row = np.array(inputs.aligned(table, embedded))
    rule = decisions.rule_for(run.predictions, params)
    folder = runs.folder(run.backbone, run.name)
    head, network = None, None
    if run.kind == "head":
        head = heads.load(folder, run.stamp)
    else:
        from pipeline.finetuning import saving  # noqa: PLC0415

        network = saving.load(folder, run.stamp)
    return TrainedModel(run, head, network, rule, table, embedded, row)


def _require_current(run: FinishedRun) -> None:
    """Raise StateError unless the run's inputs are the current ones, by their own stamps."""
    current = stamps.read(manifest.STAMP).outputs
    if run.kind == "head":
        current = {**current, **stamps.read(matrix.stamp_path(run.backbone)).outputs}
    else:
        current = {**current, **stamps.hashes([skipped.path_of(run.backbone)])}
    changed = [
        f"{runs.stamp_path(run.backbone, run.name)}: made from {name} with sha256 {run.stamp.inputs.get(name)}, "
        f"expected {now} as it is now; run `dvc repro`"
        for name, now in current.items()
        if run.stamp.inputs.get(name) != now
    ]
    if changed:
        raise StateError(*changed)
