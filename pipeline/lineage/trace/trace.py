"""Trace a number, a prediction, a model, an image or any file: what it comes from, and what was made from it.

Every file on the way must have the bytes that its stamp, the manifest or the recorded lineage says.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import stamps
from pipeline.core.errors import InputError, StateError, first_five, unknown
from pipeline.core.params import Params
from pipeline.core.words import counted
from pipeline.data import exclusions, manifest
from pipeline.data.images.decoding import SUFFIXES
from pipeline.data.manifest import Manifest
from pipeline.evaluation import runs
from pipeline.evaluation.runs import FinishedRun
from pipeline.evaluation.scoring.metrics import METRICS
from pipeline.lineage import chain
from pipeline.lineage.trace import uses
from pipeline.lineage.trace.branch import Branch
from pipeline.lineage.trace.checked_files import CheckedFiles, unaltered
from pipeline.lineage.trace.origins import Origins, hashed
from pipeline.lineage.trace.uses import Uses
from pipeline.verdict import schema

DIGITS = 8
"""The least number of digits of a sha256 that name an image."""


def trace(params: Params, what: str) -> Branch:
    """Return the chain through one thing, in both directions.

    Args:
        params: which runs there are.
        what: an image (id, path, or at least 8 digits of its sha256), a run (<backbone>/<name>, or just the name), a
            file of the recorded lineage, RUN:METRIC, or RUN:IMAGE.

    Raises:
        InputError: if there is no such thing, or several.
        StateError: if a file on the way is missing, altered, or was made from other bytes than lie there now.

    """
    files = CheckedFiles(params, chain.read().nodes if chain.LINEAGE.exists() else {})
    table = files.manifest()
    return _Trace(files, table, Origins(files, table), Uses(files, table)).of(what)


@dataclass(frozen=True)
class _Trace:
    files: CheckedFiles
    table: Manifest
    origins: Origins
    uses: Uses

    def of(self, what: str) -> Branch:
        name = _inside(what)
        if rows := self._images(name):
            return self._of_images(rows)
        if run := self._run(name):
            self.files.unaltered(Path(name))
            return self._of_run(self.files.run(*run))
        if name in self.files.nodes:
            return self._of_file(name)
        left, colon, right = what.partition(":")
        if colon and (run := self._run(_inside(left))):
            return self._of_part(self.files.run(*run), right)
        if problem := _excluded(what):
            raise InputError(problem)
        if one := runs.match_name(left, runs.finished(), "WHAT"):
            raise InputError(f"WHAT: {runs.how_to_list(self.files.params, *one.split('/'))}")
        if Path(what).suffix.lower() in SUFFIXES and Path(what).is_file():
            raise InputError(self._new_image(what))
        things = ["/".join(run) for run in self.files.params.runs()]
        raise InputError(unknown("WHAT", what, [*things, *self.files.nodes, *self.table.image_id]))

    def _new_image(self, what: str) -> str:
        same = [image_id for image_id in self.table.image_id if Path(image_id).name == Path(what).name]
        hint = f"; did you mean {same[0]!r}?" if same else ""
        return f"WHAT: {what}: is not an image of this project; `headswap predict` classifies new ones{hint}"

    def _images(self, name: str) -> list[int]:
        """Return the rows of an image, or of images with the same bytes; InputError if the name is ambiguous."""
        table = self.table
        rows = [row for row in range(len(table)) if name in (table.image_id[row], table.path[row])]
        how = "which is the id of one image and the path of another"
        if not rows and re.fullmatch(rf"[0-9a-fA-F]{{{DIGITS},64}}", name):
            rows = [row for row, sha256 in enumerate(table.sha256) if sha256.startswith(name.lower())]
            how = "with which several images' sha256 begin"
        if len({table.sha256[row] for row in rows}) > 1:
            listed = first_five([f"{table.sha256[row]} ({table.path[row]})" for row in rows], "images")
            raise InputError(f"WHAT: got {name!r}, {how}; expected the sha256 of one: {', '.join(listed)}")
        return rows

    def _run(self, name: str) -> tuple[str, str] | None:
        """Return the run that a name or path means; InputError if several do."""
        listed = {"/".join(run): run for run in self.files.params.runs()}
        meant = runs.match_name(name, listed, "WHAT")
        return listed[meant] if meant else self.files.run_of_file(name)

    def _of_images(self, rows: Sequence[int]) -> Branch:
        branches = [Branch(f"image {self.table.image_id[row]}", self.uses.of_image(row)) for row in rows]
        if len(rows) == 1:
            return branches[0]
        return Branch(f"{len(rows)} images with the same bytes", branches)

    def _of_run(self, run: FinishedRun) -> Branch:
        values = [Branch(f"{name}: {value:.4f}") for name, value in runs.read_metrics(run).items()]
        scores = Branch("validation", values)
        origin = self.origins.of_run(run)
        return Branch(origin.text, [*origin.branches, scores, self._used_for(run)])

    def _of_file(self, name: str) -> Branch:
        origin = self.origins.of_file(name)
        into = uses.of_files(self.files, [name])
        return Branch(origin.text, [*origin.branches, *([Branch("used for", into)] if into else [])])

    def _used_for(self, run: FinishedRun) -> Branch:
        nodes = self.files.nodes
        if not nodes:
            return Branch(f"used for: not known without {chain.LINEAGE}; run `dvc repro`")
        for name, sha256 in run.stamp.outputs.items():
            if name in nodes and nodes[name].sha256 != sha256:
                raise StateError(f"{chain.LINEAGE}: {name}: was recorded before {run.id} ran again; run `dvc repro`")
        return Branch("used for", uses.of_files(self.files, list(run.stamp.outputs)))

    def _of_part(self, run: FinishedRun, part: str) -> Branch:
        if part in METRICS:
            return self._of_metric(run, part)
        rows = self._images(_inside(part))
        if not rows:
            raise InputError(unknown(f"WHAT: {run.id}", part, [*METRICS, *run.predictions.image_id]))
        if len(rows) > 1:
            same = ", ".join(self.table.image_id[row] for row in rows)
            raise InputError(f"WHAT: {run.id}: got {part!r}, the bytes of several images; expected one of: {same}")
        return self._of_prediction(run, rows[0])

    def _of_metric(self, run: FinishedRun, metric: str) -> Branch:
        path = runs.metrics_path(run.backbone, run.name)
        count = len(run.predictions.of("val").label)
        value = f"validation: {runs.read_metrics(run)[metric]:.4f} on {counted(count, 'image')}"
        found = [Branch(value, [Branch(hashed(path, run.stamp.outputs[path.as_posix()]))])]
        if schema.VERDICT.exists():
            found.append(self._test_score(run, metric))
        return Branch(f"{metric} of {run.id}", [*found, self.origins.of_run(run), self._used_for(run)])

    def _test_score(self, run: FinishedRun, metric: str) -> Branch:
        content = self.files.verdict()
        path = runs.metrics_path(run.backbone, run.name).as_posix()
        name = (run.backbone, run.name)
        results = [one for one in content["results"] if (one["backbone"], one["name"]) == name]
        if not results:
            return Branch(f"test: {schema.VERDICT} does not contain this run; run `dvc repro`")
        if (then := content["inputs"].get(path)) != (now := run.stamp.outputs[path]):
            raise StateError(f"{schema.VERDICT}: read {path} with sha256 {then}, expected {now}; run `dvc repro`")
        if metric not in results[0]["test"]:
            return Branch("test: not defined, for lack of images of some class")
        value, low, high = (results[0]["test"][metric][name] for name in ("value", "low", "high"))
        images = sum(content["test_images"].values())
        text = f"test: {value:.4f}, 95% interval [{low:.4f}, {high:.4f}], on {counted(images, 'image')}"
        node = self.files.nodes.get(schema.VERDICT.as_posix())
        return Branch(text, [Branch(hashed(schema.VERDICT, node.sha256 if node else "not recorded"))])

    def _of_prediction(self, run: FinishedRun, row: int) -> Branch:
        image_id = self.table.image_id[row]
        if image_id not in run.predictions.image_id:
            skipped = "; it was skipped" if self.table.split[row] != "train" else ""
            got = f"an image of split {self.table.split[row]}{skipped}"
            raise InputError(f"WHAT: {run.id}: {image_id}: got {got}, expected one of validation or test")
        decided = self.uses.decided(run)
        at = list(decided.image_id).index(image_id)
        each = zip(decided.classes, decided.probability[at], strict=True)
        rule = "the most probable class" if decided.decided is None else "the rule under `compare` in params.yaml"
        return Branch(
            f"prediction of {image_id} by {run.id}: {uses.outcome(decided, at)}",
            [
                Branch(f"label {decided.label[at]}, split {decided.split[at]}"),
                Branch(f"probabilities: {', '.join(f'{name} {value:.4f}' for name, value in each)}"),
                Branch(f"decided by {rule}"),
                self.origins.of_run(run),
                Branch(f"image {image_id}", self._of_image(run, row)),
            ],
        )

    def _of_image(self, run: FinishedRun, row: int) -> list[Branch]:
        sha256 = unaltered(self.table.path[row], self.table.sha256[row], f"as in {manifest.MANIFEST}")
        place = self.uses.row_in(run.backbone, self.table.image_id[row])
        return [Branch(hashed(self.table.path[row], sha256)), place]


def _excluded(what: str) -> str | None:
    """Say why an image, given as a file or by its sha256, is excluded; None if it is not."""
    path = Path(what)
    digits = stamps.sha256_file(path) if path.is_file() else what.lower()
    for sha256, reason in exclusions.read().items():
        if len(digits) >= DIGITS and sha256.startswith(digits):
            return f"{what}: left out by {exclusions.EXCLUDED}: {reason}"
    return None


def _inside(what: str) -> str:
    """Return a path relative to the project's folder, as manifest and stamps write it."""
    path = Path(what)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return path.as_posix()
