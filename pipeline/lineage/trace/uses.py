"""Trace forward: what was made from an image or a file."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from pipeline.core import stamps
from pipeline.core.params import Params
from pipeline.core.words import counted
from pipeline.data import manifest
from pipeline.data.images import thumbnails
from pipeline.data.images.thumbnails import Thumbnails
from pipeline.data.manifest import Manifest
from pipeline.embeddings import matrix
from pipeline.embeddings.matrix import Embeddings
from pipeline.evaluation import curves, decisions, runs
from pipeline.evaluation.curves import CurveDecisions
from pipeline.evaluation.runs import FinishedRun
from pipeline.evaluation.scoring.predictions import Predictions
from pipeline.lineage.chain import Node
from pipeline.lineage.trace.branch import Branch, Once
from pipeline.lineage.trace.checked_files import CheckedFiles, unaltered
from pipeline.lineage.trace.origins import hashed
from pipeline.quality import files as findings
from pipeline.verdict import schema


def of_files(files: CheckedFiles, names: Sequence[str]) -> list[Branch]:
    """Return what was made from files of the recorded lineage, and what from that; a run's files are one branch."""
    nodes = files.nodes
    group = {name: files.group_of(name) for name in nodes}
    users: dict[str, set[str]] = {}
    for name, node in nodes.items():
        for source in node.made_from if node.role != "stamp" else ():  # a stamp is of its files, and makes none of them
            if group[source] != group[name]:
                users.setdefault(group[source], set()).add(group[name])
    once = Once()

    def branches(thing: str) -> list[Branch]:
        return [once(_title(nodes, one), partial(branches, one)) for one in sorted(users.get(thing, ()))]

    return [
        branch for thing in dict.fromkeys(group[name] for name in names if name in group) for branch in branches(thing)
    ]


def _title(nodes: Mapping[str, Node], thing: str) -> str:
    return f"{nodes[thing].role} {thing}" if thing in nodes else f"run {thing}"


@dataclass(frozen=True)
class Uses:
    """What was made from images, by the runs that params lists and that have finished."""

    files: CheckedFiles
    table: Manifest

    @property
    def params(self) -> Params:
        """The project's parameters."""
        return self.files.params

    @cached_property
    def _runs(self) -> list[FinishedRun]:
        made = [run for run in self.params.runs() if runs.stamp_path(*run).exists()]
        failed = runs.failures(made)
        found = [self.files.run(*run) for run in made if run not in failed]
        for run in found:
            self.files.require_current(runs.stamp_path(run.backbone, run.name), run.stamp)
        return found

    @cached_property
    def _embedded(self) -> dict[str, Embeddings]:
        return {backbone: matrix.read(backbone) for backbone in self._made(matrix.stamp_path)}

    @cached_property
    def _curves(self) -> dict[str, CurveDecisions]:
        return {backbone: curves.read(backbone) for backbone in self._made(curves.stamp_path)}

    @cached_property
    def _thumbnails(self) -> Thumbnails:
        self.files.unaltered(thumbnails.STAMP)
        return thumbnails.read()

    def _made(self, stamp_path: Callable[[str], Path]) -> Iterator[str]:
        """Yield the backbones for which a stage has run."""
        for backbone in self.params.run.backbones:
            if (path := stamp_path(backbone)).exists():
                self.files.require_current(path, self.files.stamp(path))
                yield backbone

    def of_image(self, row: int) -> list[Branch]:
        """Return everything that was made from the image in a row of the manifest, its bytes checked."""
        table, image_id = self.table, self.table.image_id[row]
        unaltered(table.path[row], table.sha256[row], f"as in {manifest.MANIFEST}")
        group = f", group {table.group[row]}" if table.group[row] is not None else ""
        same = [other for at, other in enumerate(table.image_id) if at != row and table.sha256[at] == table.sha256[row]]
        found = [
            Branch(hashed(table.path[row], table.sha256[row])),
            Branch(f"label {table.label[row]}{group}"),
            Branch(f"split {table.split[row]}, row {row} of {manifest.MANIFEST}"),
            *([Branch("same bytes as", [Branch(other) for other in same])] if same else []),
            Branch("embedded by", list(self._embedded_rows(image_id))),
        ]
        parts = {
            "trained on it": list(self._trainings(row)),
            "chosen with it": list(self._choices_by(row)),
            "predictions of it": list(self._predictions(image_id)),
            "reported in": list(self._reports(row)),
        }
        return found + [Branch(text, branches) for text, branches in parts.items() if branches]

    def row_in(self, backbone: str, image_id: str) -> Branch:
        """Return an image's row in a backbone's matrix."""
        path, left_out = matrix.matrix_path(backbone), self.files.skipped(backbone)
        if image_id in left_out:
            return Branch(f"{backbone}: skipped: {left_out[image_id]}")
        embedded = self._embedded[backbone]
        row = list(embedded.image_id).index(image_id)
        views = np.flatnonzero(embedded.augmented.row == row).tolist() if embedded.augmented else list[int]()
        further = f", further views in rows {', '.join(map(str, views))} of /augmented" if views else ""
        return Branch(f"{backbone}: row {row} of /features in {path}{further}")

    def _embedded_rows(self, image_id: str) -> Iterator[Branch]:
        for backbone in self.params.run.backbones:
            made = backbone in self._embedded
            yield self.row_in(backbone, image_id) if made else Branch(f"{backbone}: not yet; run `dvc repro`")

    def _trainings(self, row: int) -> Iterator[Branch]:
        split = self.table.split[row]
        for run in self._runs_with(row):
            if split == "train":
                yield Branch(run.id)
            elif split == "val" and refitted(run, self.params):
                yield Branch(f"{run.id}: refitted on training and validation images once its settings were chosen")
        for backbone, curve in self._curves.items() if split == "train" else ():
            text = f"{counted(len(curve.points), 'training')} on parts of the training images, which may hold this one"
            yield Branch(f"{curves.path_of(backbone)}: {text}")

    def _choices_by(self, row: int) -> Iterator[Branch]:
        if self.table.split[row] != "val":
            return
        for run in self._runs_with(row):
            yield Branch(f"{run.id}: {', '.join(_choices(run, self.params))}")

    def _runs_with(self, row: int) -> Iterator[FinishedRun]:
        for run in self._runs:
            if self.table.image_id[row] not in self.files.skipped(run.backbone):
                yield run

    def _predictions(self, image_id: str) -> Iterator[Branch]:
        for run in self._runs:
            if image_id in run.predictions.image_id:
                decided = self.decided(run)
                row = list(decided.image_id).index(image_id)
                yield Branch(f"{run.id}: {outcome(decided, row)}")
        for backbone, curve in self._curves.items():
            if image_id in curve.image_id:
                row = list(curve.image_id).index(image_id)
                truth = curve.classes.index(curve.label[row])
                right = sum(int(point.decided[row]) == truth for point in curve.points)
                trainings = f"{counted(len(curve.points), 'training')} {'is' if right == 1 else 'are'}"
                yield Branch(f"{curves.path_of(backbone)}: {right} of its {trainings} right")

    def _reports(self, row: int) -> Iterator[Branch]:
        if thumbnails.STAMP.exists() and self.table.image_id[row] in self._thumbnails.image_id:
            yield Branch(f"{thumbnails.PATH} and {thumbnails.SPRITE}: a small picture, which {schema.PAGE} may show")
        if schema.VERDICT.exists() and self.table.split[row] == "test":
            images = sum(self.files.verdict()["test_images"].values())
            yield Branch(f"{schema.VERDICT}: one of the {images} test images of its scores")
        for check in findings.read().values() if findings.STAMP.exists() else ():
            if any(one["image_id"] == self.table.image_id[row] for one in check["findings"]):
                yield Branch(f"{findings.LIST}: {check['title']}")

    def decided(self, run: FinishedRun) -> Predictions:
        """Return a run's predictions, decided by the rule that params ask for."""
        rule = decisions.rule_for(run.predictions, self.params)
        return rule.apply(run.predictions) if rule else run.predictions


def outcome(decided: Predictions, row: int) -> str:
    """Describe the decision for an image, and whether it is right."""
    number = int(decided.decision()[row])
    right = "right" if decided.classes[number] == decided.label[row] else f"wrong, it is {decided.label[row]}"
    return f"{decided.classes[number]} ({right}), probability {decided.probability[row, number]:.4f}"


def refitted(run: FinishedRun, params: Params) -> bool:
    """Return whether a head was fitted again on training and validation images (`search: validation`).

    Each candidate in its stamp then has one score instead of one for each fold; without candidates, params decide.
    """
    if run.kind != "head":
        return False
    scores = [len(candidate["scores"]) for candidate in run.stamp.facts.get("candidates", ()) if candidate["scores"]]
    if scores:
        return set(scores) == {1}
    return params.heads.get(run.name, {}).get("search") == "validation"


def _choices(run: FinishedRun, params: Params) -> Iterator[str]:
    """Yield what was chosen for a run by validation images."""
    if run.kind == "plan":
        yield "the epoch to keep"
    if refitted(run, params) and len(run.stamp.facts.get("candidates", ())) > 1:
        yield "its settings"
    content = json.loads(stamps.check(runs.metrics_path(run.backbone, run.name), run.stamp))
    if "calibration" in content:
        yield "its calibration"
    if params.compare.decision == "threshold" and not params.compare.costs:
        yield "the threshold of its decisions"
    yield f"whether it is the best {run.kind}"
