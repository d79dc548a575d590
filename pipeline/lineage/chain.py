"""The chain images -> manifest -> embeddings -> runs -> verdict: put together from stamps, recorded and read."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.core import artifacts, environment, stamps
from pipeline.core.artifacts import VERDICT, Artifact
from pipeline.core.atomic import write_json
from pipeline.core.errors import StateError
from pipeline.core.mismatches import Mismatch
from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.data.images import thumbnails
from pipeline.quality import files
from pipeline.verdict import schema

LINEAGE = artifacts.LINEAGE.at()

WITH_WEIGHTS = ("embeddings", "run")
"""Roles of files that may be made from a backbone's weights, the one file in the chain that no stage wrote."""

SHOWN = (manifest.MANIFEST, thumbnails.PATH, thumbnails.SPRITE, files.FINDINGS)
"""Files that the page shows besides the verdict."""

# To change the layout of lineage.json: raise this number; `read` then asks for a rerun of the stage `lineage`.
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Node:
    """One file: what it is, its bytes' hash, and the files it was made from."""

    role: str
    sha256: str
    made_from: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lineage:
    """Locator of every file in the chain -> Node. The images are listed in the manifest; `images` is their number."""

    nodes: Mapping[str, Node]
    images: int
    made_with: Mapping[str, Any]
    schema_version: int = SCHEMA_VERSION


@dataclass
class _Chain:
    nodes: dict[str, Node] = field(default_factory=dict)
    broken: list[Mismatch] = field(default_factory=list)

    def add(self, role: str, path: Path, made_from: Mapping[str, str]) -> None:
        """Add a file as it is now, made from files (name -> sha256) that must still have the same bytes."""
        self.nodes[path.as_posix()] = Node(role, stamps.sha256_file(path), tuple(sorted(made_from)))
        for name, then in made_from.items():
            if name not in self.nodes and role not in WITH_WEIGHTS:
                expected = f"a file of a run listed in params, as {path} was made from it"
                self.broken.append(Mismatch(name, expected, "none"))
                continue
            if name not in self.nodes:
                self.nodes[name] = Node("weights", stamps.sha256_file(stamps.locate(name)))
            if (now := self.nodes[name].sha256) != then:
                self.broken.append(Mismatch(name, f"sha256 {then} when {path} was made from it", f"sha256 {now}"))

    def add_artifact(self, one: Artifact, names: tuple[str, ...]) -> None:
        """Add an artifact's stamp and all outputs in it, which must have the stamped bytes."""
        if one.stamp in ("", one.path):
            self.add(one.role, one.at(*names), stamps.read(one.at(*names)).inputs if one.stamp else {})
            return
        stamp = stamps.read(one.stamp_at(*names))
        for name in stamp.outputs:
            self.add(one.role, Path(name), stamp.inputs)
        self._add_stamp(one.stamp_at(*names), stamp.outputs)

    def add_report(self) -> None:
        """Add the verdict, what is made from it, and their stamp; what the page shows is no input of the verdict."""
        stamp, page = stamps.read(schema.STAMP), schema.PAGE.as_posix()
        always = (schema.VERDICT, schema.SCORES, schema.PAGE)
        made = {**dict.fromkeys(map(Path.as_posix, always), "none"), **stamp.outputs}
        shown = {path.as_posix(): stamp.inputs.get(path.as_posix(), "none") for path in SHOWN}
        judged = {name: sha256 for name, sha256 in stamp.inputs.items() if name not in shown}
        of_verdict = {schema.VERDICT.as_posix(): made[schema.VERDICT.as_posix()]}
        self.add("verdict", schema.VERDICT, judged)
        for name in sorted(made.keys() - {*of_verdict, page}):
            self.add(artifacts.SCORES.role if name == schema.SCORES.as_posix() else "plot", Path(name), of_verdict)
        self.add("report", schema.PAGE, of_verdict | shown)
        self._add_stamp(schema.STAMP, made)

    def _add_stamp(self, stamp_path: Path, outputs: Mapping[str, str]) -> None:
        """Add a stamp; its outputs are in the chain, and must have the stamped bytes."""
        for name, stamped in outputs.items():
            if self.nodes[name].sha256 != stamped:
                found = f"sha256 {self.nodes[name].sha256}"
                self.broken.append(Mismatch(name, f"sha256 {stamped} as stamped in {stamp_path}", found))
        self.add("stamp", stamp_path, {name: self.nodes[name].sha256 for name in outputs})


def record(params: Params) -> Lineage:
    """Follow the stamps of all runs in params, write reports/lineage.json, and return its content.

    Raises:
        StateError: if a file does not have its stamped bytes, or was made from files that have changed since.

    """
    chain = _Chain()
    before_report = [one for one in artifacts.ALL if one.stages not in (VERDICT.stages, artifacts.LINEAGE.stages)]
    for one in {one.stamp or one.path: one for one in before_report}.values():
        for names in one.names_in(params):
            chain.add_artifact(one, names)
    chain.add_report()
    if chain.broken:
        raise StateError(*sorted(map(str, chain.broken)), "run `dvc repro --force`")
    lineage = Lineage(chain.nodes, len(manifest.read()), environment.describe())
    write_json(LINEAGE, asdict(lineage))
    return lineage


def read() -> Lineage:
    """Read reports/lineage.json; StateError if it is missing, malformed or of another version."""
    try:
        content = json.loads(stamps.read_bytes(LINEAGE))
        content["nodes"] = {name: Node(**node) for name, node in content["nodes"].items()}
        lineage = Lineage(**content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StateError(f"{LINEAGE}: is not a lineage; run `dvc repro --force -s lineage`") from error
    if lineage.schema_version != SCHEMA_VERSION:
        got = lineage.schema_version
        raise StateError(f"{LINEAGE}: schema_version: got {got}, expected {SCHEMA_VERSION}; run `dvc repro`")
    return lineage
