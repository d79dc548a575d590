"""The files that `trace` reads, each held against reports/lineage.json before a word of it is believed."""

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
from pipeline.evaluation.runs import Run
from pipeline.lineage import chain
from pipeline.lineage.chain import Node
from pipeline.verdict import schema


@dataclass(frozen=True)
class Recorded:
    """The recorded lineage, empty where there is none, and readers of what it vouches for.

    An artifact is checked against its stamp by whoever reads it; stamps and the verdict have nobody else.
    """

    params: Params
    nodes: Mapping[str, Node]

    def unaltered(self, path: Path) -> Path:
        """Return the path of a file that has the recorded bytes, or of which none are recorded; StateError if not."""
        if node := self.nodes.get(path.as_posix()):
            unaltered(path.as_posix(), node.sha256, f"as recorded in {chain.LINEAGE}")
        return path

    def stamp(self, path: Path) -> Stamp:
        """Read a stamp."""
        return stamps.read(self.unaltered(path))

    def skipped(self, backbone: str) -> Mapping[str, str]:
        """Return why images have no row of a backbone's, by their id."""
        path = skipped.path_of(backbone)
        return skipped.of(path, self.stamp(path))

    def manifest(self) -> Manifest:
        """Read the list of images."""
        self.unaltered(manifest.STAMP)
        table = manifest.read()
        table.require_folder(self.params.data.folder)
        return table

    def run(self, backbone: str, name: str) -> Run:
        """Read a run."""
        self.unaltered(runs.stamp_path(backbone, name))
        return runs.read(backbone, name)

    def verdict(self) -> dict[str, Any]:
        """Read the verdict."""
        self.unaltered(schema.VERDICT)
        return schema.read()

    def run_of_file(self, name: str) -> tuple[str, str] | None:
        """Return backbone and name of the listed run that a path belongs to: its folder, or a file that it left."""
        names = artifacts.named(name)
        run = next((one for one in self.params.runs() if one == names), None)
        if run is None:
            return None
        path = runs.stamp_path(*run)
        return run if Path(name) in (path, path.parent) or name in self.stamp(path).outputs else None

    def group_of(self, name: str) -> str:
        """Return what a file is a part of: a run's id, the file that it is the stamp of, or itself."""
        if run := self.run_of_file(name):
            return "/".join(run)
        node = self.nodes[name]
        return node.made_from[0] if node.role == "stamp" and node.made_from else name

    def require_current(self, path: Path, stamp: Stamp) -> None:
        """Raise StateError if what a stamp's stage read is not what the manifest's or a matrix's own stamp says now."""
        for name, then in stamp.inputs.items():
            now = then
            if list_of(name):
                now = stamps.sha256_file(self.unaltered(Path(name)))
            elif maker := maker_of(name):
                now = self.stamp(maker).outputs.get(name, "none")
            if now != then:
                raise StateError(
                    f"{path}: made from {name} with sha256 {then}, expected {now} as it is now; run `dvc repro`"
                )


def list_of(name: str) -> str | None:
    """Return the backbone whose skipped images an input lists; None if it is another file."""
    return artifacts.named(name)[0] if artifacts.SKIPPED.is_at(name) else None


def maker_of(name: str) -> Path | None:
    """Return the stamp that holds an input's hash; None for weights, and for the list of skipped images."""
    made = next((one for one in (artifacts.MANIFEST, artifacts.EMBEDDINGS) if one.is_at(name)), None)
    return made.stamp_at(*artifacts.named(name)) if made else None


def unaltered(locator: str, expected: str, said: str) -> str:
    """Return the sha256 of a file's bytes; StateError if it is not the expected one."""
    found = stamps.sha256_file(stamps.locate(locator))
    if found != expected:
        raise StateError(f"{locator}: sha256: got {found}, expected {expected} {said}; run `dvc repro`")
    return found
