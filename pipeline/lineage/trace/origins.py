"""Trace back: what a run, a matrix or any other file was made from, with every byte checked on the way."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.core import stamps
from pipeline.core.cost import duration
from pipeline.core.errors import PipelineError
from pipeline.core.stamps import Stamp
from pipeline.core.words import counted
from pipeline.data import manifest
from pipeline.data.manifest import Manifest
from pipeline.embeddings import matrix, skipped
from pipeline.evaluation import runs
from pipeline.evaluation.runs import FinishedRun
from pipeline.lineage import chain
from pipeline.lineage.trace.branch import Branch, Once
from pipeline.lineage.trace.checked_files import CheckedFiles, backbone_of_skipped, stamp_of, unaltered
from pipeline.lineage.trace.dvc_file import dvc_branch


@dataclass(frozen=True)
class Origins:
    """Makes the branches of one tree."""

    files: CheckedFiles
    table: Manifest
    once: Once = field(default_factory=Once)

    def of_run(self, run: FinishedRun) -> Branch:
        """Return where a run's model comes from."""
        return self.once(f"{run.kind} {run.id}", lambda: list(self._of_run(run)))

    def _of_run(self, run: FinishedRun) -> Iterator[Branch]:
        facts, stamp = run.stamp.facts, self.files.stamp(runs.stamp_path(run.backbone, run.name))
        for name in sorted(stamp.outputs):
            if name.startswith(f"{runs.folder(run.backbone, run.name).as_posix()}/"):
                yield Branch(hashed(name, unaltered(name, stamp.outputs[name], "as stamped")))
        if settings := _listed(facts.get("params", {}), "="):
            chosen = f", chosen from {count} candidates" if (count := len(facts.get("candidates", ()))) > 1 else ""
            yield Branch(f"settings: {settings}{chosen}")
        yield Branch(f"seed: {facts.get('seed', 'not recorded')}")
        device = f" on {facts['device']}" if "device" in facts else ""
        yield Branch(f"took {duration(run.cost.seconds)}, {run.cost.cpu_seconds:.1f} s of CPU time{device}")
        yield self._made_with(facts.get("made_with", {}))
        self.files.require_current(runs.stamp_path(run.backbone, run.name), stamp)
        yield Branch("made from", self._of_inputs(stamp))

    def _made_with(self, made_with: Mapping[str, Any]) -> Branch:
        changed = " with uncommitted changes" if made_with.get("uncommitted_changes") else ""
        commit = made_with.get("commit")
        code = f"code: commit {commit}{changed}" if commit else "code: in no git commit"
        rest = {
            "python": made_with.get("python"),
            "libraries": _listed(made_with.get("libraries", {})),
            "machine": _listed(made_with.get("machine", {})),
        }
        return self.once(
            code, lambda: [Branch(f"{name}: {value}") for name, value in rest.items() if value], repr(made_with)
        )

    def _of_inputs(self, stamp: Stamp) -> list[Branch]:
        return [self._of_input(name, sha256) for name, sha256 in sorted(stamp.inputs.items())]

    def _of_input(self, name: str, sha256: str) -> Branch:
        if backbone := backbone_of_skipped(name):
            return self.of_skipped(backbone)
        if (stamp_path := stamp_of(name)) is None:
            return self.of_weights(name, sha256)
        return self.of_manifest() if stamp_path == manifest.STAMP else self.of_embeddings(stamp_path.stem)

    def of_manifest(self) -> Branch:
        """Return where the list of images comes from."""
        return self.once(hashed(manifest.MANIFEST, stamps.sha256_file(manifest.MANIFEST)), self._of_manifest)

    def _of_manifest(self) -> list[Branch]:
        facts, counts = self.files.stamp(manifest.STAMP).facts, Counter(self.table.split)
        splits = ", ".join(f"{counts[split]} {split}" for split in manifest.SPLITS)
        split, data = _listed(facts.get("split", {})), self.files.params.data
        tracked = dvc_branch(data.path)
        return [
            Branch(
                f"{counted(len(self.table), 'image')} in {data.remote or data.path}: {splits}",
                [tracked] if tracked else [],
            ),
            Branch(f"read by source {facts.get('source')}; split by {split}, seed {facts.get('seed')}"),
        ]

    def of_embeddings(self, backbone: str) -> Branch:
        """Return where a matrix comes from."""
        path, stamp = matrix.matrix_path(backbone), self.files.stamp(matrix.stamp_path(backbone))

        def grow() -> Sequence[Branch]:
            embedded = matrix.read(backbone)
            self.files.require_current(matrix.stamp_path(backbone), stamp)
            rows, width = embedded.features.shape
            views = f" and {counted(len(embedded.augmented.row), 'further view')}" if embedded.augmented else ""
            return [
                Branch(
                    f"{counted(rows, 'row')} of {width}{views}; "
                    f"{counted(len(self.files.skipped(backbone)), 'image')} skipped"
                ),
                Branch(f"recipe: {_listed(stamp.facts['recipe'])}"),
                *([Branch(f"recipe of the views: {_listed(embedded.augmented.recipe)}")] if embedded.augmented else []),
                *self._of_inputs(stamp),
            ]

        return self.once(hashed(path, stamp.outputs[path.as_posix()]), grow)

    def of_skipped(self, backbone: str) -> Branch:
        """Return where the list of images that a backbone skipped comes from."""
        path = skipped.path_of(backbone)
        sha256 = stamps.sha256_file(self.files.unaltered(path))

        def grow() -> Sequence[Branch]:
            images = Branch(f"{counted(len(self.files.skipped(backbone)), 'image')} skipped")
            return [images, *self._of_inputs(self.files.stamp(path))]

        return self.once(hashed(path, sha256), grow)

    def of_weights(self, locator: str, sha256: str) -> Branch:
        """Return a file of weights, which no stage made; it may be missing on this machine."""
        try:
            here = stamps.locate(locator).exists()
        except PipelineError:
            here = False
        if here:
            unaltered(locator, sha256, "as it was read")
        away = "" if here else "; not on this machine, so its bytes were not checked"
        return Branch(f"weights {hashed(locator, sha256)}{away}")

    def of_file(self, name: str) -> Branch:
        """Return where any file of the recorded lineage comes from."""
        if run := self.files.run_of_file(name):
            return self.of_run(self.files.run(*run))
        for backbone in self.files.params.run.backbones:
            if Path(name) in (matrix.matrix_path(backbone), matrix.stamp_path(backbone)):
                return self.of_embeddings(backbone)
        if Path(name) in (manifest.MANIFEST, manifest.STAMP):
            return self.of_manifest()
        node = self.files.nodes[name]
        if node.role == "weights":
            return self.of_weights(name, node.sha256)
        sha256 = unaltered(name, node.sha256, f"as recorded in {chain.LINEAGE}")
        return self.once(f"{node.role} {hashed(name, sha256)}", lambda: self._made_from(node.made_from))

    def _made_from(self, names: Iterable[str]) -> list[Branch]:
        """Return a branch for each artifact: one for all files of a run, one for a file and its stamp."""
        origins = {self.files.group_of(name): name for name in sorted(names)}
        return [self.of_file(name) for name in origins.values()]


def hashed(name: str | Path, sha256: str) -> str:
    """Return a file's name with its hash."""
    return f"{name} sha256 {sha256}"


def _listed(values: Mapping[str, Any], between: str = " ") -> str:
    return ", ".join(f"{name}{between}{value}" for name, value in values.items() if value is not None)
