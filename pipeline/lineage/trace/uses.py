"""Forward along the chain: what came of an image, and what was made from a file."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from pipeline.core import stamps
from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.data.images import thumbnails
from pipeline.data.images.thumbnails import Thumbnails
from pipeline.data.manifest import Manifest
from pipeline.embeddings import matrix
from pipeline.embeddings.matrix import Embeddings
from pipeline.evaluation import curves, decisions, runs
from pipeline.evaluation.curves import Curve
from pipeline.evaluation.runs import Run
from pipeline.evaluation.scoring.predictions import Predictions
from pipeline.lineage.chain import Node
from pipeline.lineage.trace.branch import Branch, Once
from pipeline.lineage.trace.origins import hashed
from pipeline.lineage.trace.recorded import Recorded, unaltered
from pipeline.quality import files as findings
from pipeline.verdict import schema


def of_files(recorded: Recorded, names: Sequence[str]) -> list[Branch]:
    """Return what was made from files of the recorded lineage, and what from that; files of one run are one thing."""
    nodes = recorded.nodes
    group = {name: recorded.group_of(name) for name in nodes}
    into: dict[str, set[str]] = {}
    for name, node in nodes.items():
        for source in node.made_from:
            if group[source] != group[name]:
                into.setdefault(group[source], set()).add(group[name])
    once = Once()

    def grown(thing: str) -> list[Branch]:
        return [once(_called(nodes, one), partial(grown, one)) for one in sorted(into.get(thing, ()))]

    return [
        branch for thing in dict.fromkeys(group[name] for name in names if name in group) for branch in grown(thing)
    ]


def _called(nodes: Mapping[str, Node], thing: str) -> str:
    return f"{nodes[thing].role} {thing}" if thing in nodes else f"run {thing}"


@dataclass(frozen=True)
class Uses:
    """What came of images, as far as the runs that params lists have been made."""

    recorded: Recorded
    table: Manifest

    @property
    def params(self) -> Params:
        """Of the project."""
        return self.recorded.params

    @cached_property
    def _runs(self) -> list[Run]:
        made = [run for run in self.params.runs() if runs.stamp_path(*run).exists()]
        failed = runs.failed(made)
        found = [self.recorded.run(*run) for run in made if run not in failed]
        for run in found:
            self.recorded.require_current(runs.stamp_path(run.backbone, run.name), run.stamp)
        return found

    @cached_property
    def _embedded(self) -> dict[str, Embeddings]:
        return {backbone: matrix.read(backbone) for backbone in self._made(matrix.stamp_path)}

    @cached_property
    def _curves(self) -> dict[str, Curve]:
        return {backbone: curves.read(backbone) for backbone in self._made(curves.stamp_path)}

    @cached_property
    def _thumbnails(self) -> Thumbnails:
        self.recorded.unaltered(thumbnails.STAMP)
        return thumbnails.read()

    def _made(self, stamp_path: Callable[[str], Path]) -> Iterator[str]:
        """Yield the backbones for which a stage has run."""
        for backbone in self.params.run.backbones:
            if (path := stamp_path(backbone)).exists():
                self.recorded.require_current(path, self.recorded.stamp(path))
                yield backbone

    def of_image(self, row: int) -> list[Branch]:
        """Return everything that came of the image in a row of the manifest, its bytes checked."""
        table, image_id = self.table, self.table.image_id[row]
        unaltered(table.path[row], table.sha256[row], f"as in {manifest.MANIFEST}")
        group = f", group {table.group[row]}" if table.group[row] is not None else ""
        same = [other for at, other in enumerate(table.image_id) if at != row and table.sha256[at] == table.sha256[row]]
        found = [
            Branch(hashed(table.path[row], table.sha256[row])),
            Branch(f"label {table.label[row]}{group}"),
            Branch(f"split {table.split[row]}, row {row} of {manifest.MANIFEST}"),
            *([Branch("same bytes as", [Branch(other) for other in same])] if same else []),
            Branch("embedded by", list(self._rows(image_id))),
        ]
        parts = {
            "trained on it": list(self._trained(row)),
            "chosen with it": list(self._chosen(row)),
            "predictions of it": list(self._predicted(image_id)),
            "reported in": list(self._reported(row)),
        }
        return found + [Branch(text, branches) for text, branches in parts.items() if branches]

    def row_in(self, backbone: str, image_id: str) -> Branch:
        """Return where an image stands in a backbone's matrix."""
        path, left_out = matrix.matrix_path(backbone), self.recorded.skipped(backbone)
        if image_id in left_out:
            return Branch(f"{backbone}: skipped: {left_out[image_id]}")
        embedded = self._embedded[backbone]
        row = list(embedded.image_id).index(image_id)
        views = np.flatnonzero(embedded.augmented.row == row).tolist() if embedded.augmented else list[int]()
        further = f", further views in rows {', '.join(map(str, views))} of /augmented" if views else ""
        return Branch(f"{backbone}: row {row} of /features in {path}{further}")

    def _rows(self, image_id: str) -> Iterator[Branch]:
        for backbone in self.params.run.backbones:
            made = backbone in self._embedded
            yield self.row_in(backbone, image_id) if made else Branch(f"{backbone}: not yet; run `dvc repro`")

    def _trained(self, row: int) -> Iterator[Branch]:
        split = self.table.split[row]
        for run in self._using(row):
            if split == "train":
                yield Branch(run.id)
            elif split == "val" and refitted(run, self.params):
                yield Branch(f"{run.id}: refitted on training and validation images once its settings were chosen")
        for backbone, curve in self._curves.items() if split == "train" else ():
            text = f"{len(curve.points)} trainings on parts of the training images, which may hold this one"
            yield Branch(f"{curves.path_of(backbone)}: {text}")

    def _chosen(self, row: int) -> Iterator[Branch]:
        if self.table.split[row] != "val":
            return
        for run in self._using(row):
            yield Branch(f"{run.id}: {', '.join(_choices(run, self.params))}")

    def _using(self, row: int) -> Iterator[Run]:
        for run in self._runs:
            if self.table.image_id[row] not in self.recorded.skipped(run.backbone):
                yield run

    def _predicted(self, image_id: str) -> Iterator[Branch]:
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
                yield Branch(f"{curves.path_of(backbone)}: {right} of its {len(curve.points)} trainings are right")

    def _reported(self, row: int) -> Iterator[Branch]:
        if thumbnails.STAMP.exists() and self.table.image_id[row] in self._thumbnails.image_id:
            yield Branch(f"{thumbnails.PATH} and {thumbnails.SPRITE}: a small picture, which {schema.PAGE} may show")
        if schema.VERDICT.exists() and self.table.split[row] == "test":
            images = sum(self.recorded.verdict()["test_images"].values())
            yield Branch(f"{schema.VERDICT}: one of the {images} test images that its scores are of")
        for check in findings.read().values() if findings.STAMP.exists() else ():
            if any(one["image_id"] == self.table.image_id[row] for one in check["findings"]):
                yield Branch(f"{findings.LIST}: {check['title']}")

    def decided(self, run: Run) -> Predictions:
        """Return a run's predictions, decided by the rule that params ask for."""
        rule = decisions.rule_for(run.predictions, self.params)
        return rule.apply(run.predictions) if rule else run.predictions


def outcome(decided: Predictions, row: int) -> str:
    """Word what was decided for an image, and whether that is right."""
    number = int(decided.decision()[row])
    right = "right" if decided.classes[number] == decided.label[row] else f"wrong, it is {decided.label[row]}"
    return f"{decided.classes[number]} ({right}), probability {decided.probability[row, number]:.4f}"


def refitted(run: Run, params: Params) -> bool:
    """Return whether a head was fitted anew on training and validation images (`search: validation`).

    Its stamp tells by the scores of its candidates, a single one each instead of one for each fold; where there was
    nothing to choose, only params tell.
    """
    if run.kind != "head":
        return False
    scores = [len(candidate["scores"]) for candidate in run.stamp.facts.get("candidates", ()) if candidate["scores"]]
    if scores:
        return set(scores) == {1}
    return params.heads.get(run.name, {}).get("search") == "validation"


def _choices(run: Run, params: Params) -> Iterator[str]:
    """Yield what validation images decided for a run."""
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
