"""The files that `trace` reads, each checked against reports/lineage.json before it is used."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core import artifacts, stamps
from pipeline.core.errors import StateError
from pipeline.core.params import Params
from pipeline.core.stamps import Stamp
from pipeline.data import manifest
from pipeline.data.manifest import Manifest
from pipeline.embeddings import skipped
from pipeline.evaluation import runs
from pipeline.evaluation.runs import FinishedRun
from pipeline.lineage import chain
from pipeline.lineage.chain import Node
from pipeline.verdict import schema


@dataclass(frozen=True)
class CheckedFiles:
    """The nodes of the recorded lineage, if there is one, and readers that check files against it.

    Stamps and the verdict are checked here; the code that reads another artifact checks it against its stamp.
    """

    params: Params
    nodes: Mapping[str, Node]

    def unaltered(self, path: Path) -> Path:
        """Return the path; StateError if the file has other bytes than the recorded ones. It need not be recorded."""
        if node := self.nodes.get(path.as_posix()):
            unaltered(path.as_posix(), node.sha256, f"as recorded in {chain.LINEAGE}")
        return path

    def stamp(self, path: Path) -> Stamp:
        """Read a stamp."""
        return stamps.read(self.unaltered(path))

    def skipped(self, backbone: str) -> Mapping[str, str]:
        """Return id -> reason of the images that a backbone skipped."""
        path = skipped.path_of(backbone)
        return skipped.of(path, self.stamp(path))

    def manifest(self) -> Manifest:
        """Read the list of images."""
        self.unaltered(manifest.STAMP)
        table = manifest.read()
        table.require_folder(self.params.data.folder)
        return table

    def run(self, backbone: str, name: str) -> FinishedRun:
        """Read a run."""
        self.unaltered(runs.stamp_path(backbone, name))
        return runs.read(backbone, name)

    def verdict(self) -> dict[str, Any]:
        """Read the verdict."""
        self.unaltered(schema.VERDICT)
        return schema.read()

    def run_of_file(self, name: str) -> tuple[str, str] | None:
        """Return backbone and name of the listed run whose folder or output a path is; None if it is neither."""
        names = artifacts.named(name)
        run = next((one for one in self.params.runs() if one == names), None)
        if run is None:
            return None
        path = runs.stamp_path(*run)
        return run if Path(name) in (path, path.parent) or name in self.stamp(path).outputs else None

    def group_of(self, name: str) -> str:
        """Return the id of the run that a file belongs to, the artifact that a stamp belongs to, or the file itself."""
        if run := self.run_of_file(name):
            return "/".join(run)
        node = self.nodes[name]
        return node.made_from[0] if node.role == "stamp" and node.made_from else name

    def require_current(self, path: Path, stamp: Stamp) -> None:
        """Raise StateError if a stage read another manifest or matrix than the current one, as its own stamp has it."""
        for name, then in stamp.inputs.items():
            now = then
            if backbone_of_skipped(name):
                now = stamps.sha256_file(self.unaltered(Path(name)))
            elif stamp_path := stamp_of(name):
                now = self.stamp(stamp_path).outputs.get(name, "none")
            if now != then:
                raise StateError(
                    f"{path}: made from {name} with sha256 {then}, expected {now} as it is now; run `dvc repro`"
                )


def backbone_of_skipped(name: str) -> str | None:
    """Return the backbone whose list of skipped images a file is; None if it is none."""
    return artifacts.named(name)[0] if artifacts.SKIPPED.is_at(name) else None


def stamp_of(name: str) -> Path | None:
    """Return the stamp of a manifest or matrix; None for any other file."""
    made = next((one for one in (artifacts.MANIFEST, artifacts.EMBEDDINGS) if one.is_at(name)), None)
    return made.stamp_at(*artifacts.named(name)) if made else None


def unaltered(locator: str, expected: str, source: str) -> str:
    """Return the sha256 of a file's bytes; StateError if it is not the expected one."""
    found = stamps.sha256_file(stamps.locate(locator))
    if found != expected:
        restore = stamps.how_to_restore(Path(locator))
        raise StateError(f"{locator}: sha256: got {found}, expected {expected} {source}; {restore}")
    return found
