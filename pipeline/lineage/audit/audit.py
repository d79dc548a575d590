"""Verify the whole chain, from the images' bytes to the verdict, and DVC's record of it; nothing is written."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.core import locks, stamps
from pipeline.core.errors import PipelineError, StateError
from pipeline.core.locks import LOCK, Lock
from pipeline.core.mismatches import Mismatch
from pipeline.core.params import Params
from pipeline.core.words import counted
from pipeline.data import manifest
from pipeline.data.exclusions import EXCLUDED
from pipeline.data.manifest import MANIFEST, STAMP, Manifest
from pipeline.embeddings import matrix, skipped
from pipeline.evaluation import runs
from pipeline.evaluation.scoring import predictions
from pipeline.lineage import chain
from pipeline.lineage.audit import (
    caveats,
    consistency,
    digests,
    dvc_lock,
    embedding_rows,
    extra_files,
    forgotten_images,
    repository,
)
from pipeline.lineage.audit.digests import MISSING, Checksum, Digests
from pipeline.lineage.audit.recompute import Recomputed, recompute
from pipeline.lineage.audit.repository import Repository
from pipeline.lineage.chain import LINEAGE, Node
from pipeline.quality import leaks
from pipeline.verdict import schema

SCHEMA_VERSION = 1
"""Of the JSON."""


@dataclass
class Audit:
    """What was found, and how much was read for it."""

    quick: bool = False
    findings: list[Mismatch] = field(default_factory=list)
    leaks: list[Mismatch] = field(default_factory=list)
    """Images in two splits, and conflicting labels: faults of the data, which nobody altered."""
    notes: list[str] = field(default_factory=list)
    """What the audit cannot verify, and what is worth knowing."""
    recomputed: dict[str, Recomputed] = field(default_factory=dict)
    """By backbone."""
    files: int = 0
    images: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def add(self, findings: Iterable[Mismatch]) -> None:
        """Add findings, except on a file that already has one, or on a folder that holds such a file."""
        covered = {name for finding in self.findings for name in _covered(finding)}
        for finding in sorted(findings, key=lambda one: -one.path.count("/")):
            if finding.place not in covered:
                self.findings.append(finding)
                covered.update(_covered(finding))

    def unexplained(self, findings: Iterable[Mismatch]) -> list[Mismatch]:
        """Leave out that a check could not be made because of a file that has a finding of its own."""
        named = {finding.path for finding in self.findings}
        return [one for one in findings if one.path in named or one.found.partition(": ")[0] not in named]

    def is_sound(self, *paths: Path) -> bool:
        """Return whether none of these files has a finding."""
        return {finding.path for finding in self.findings}.isdisjoint(map(Path.as_posix, paths))

    def content(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {"schema_version": SCHEMA_VERSION, "altered": bool(self.findings), **asdict(self)}


def _covered(finding: Mismatch) -> set[str]:
    """Return the part or whole file that a finding is about, and all folders above it."""
    return {finding.place, *map(str, PurePosixPath(finding.path).parents)}


def audit(params: Params, *, quick: bool = False, recomputed: int = 0) -> Audit:
    """Check everything; every finding is gathered, and no file is parsed whose bytes are not the recorded ones.

    Args:
        params: whose runs make up the chain.
        quick: check structure, stamps and sizes, and read no other file in full.
        recomputed: how many rows of every matrix to compute again.

    Raises:
        StateError: if there is no record to check against.

    """
    start = time.perf_counter()
    done = Audit(quick)
    with repository.opened() as repo:
        values, lock = _lock(repo, done)
        nodes = _nodes(lock, done)
        checksums = _checksums(nodes, lock, repo)
        table = _manifest(checksums, done)
        checksums += [*_of_images(table), *_of_shards(params, done)]
        folders = dvc_lock.folders(lock, repo) if repo else {}
        hashed = _hash(checksums, folders, nodes, done)
        _extra_files(params, (checksum.locator for checksum in checksums), done)
        if repo and not quick:
            images = set(table.path) if table else set()
            done.findings += list(dvc_lock.changed_folders(lock, folders, hashed, done.findings, images))
            done.add(dvc_lock.run_cache(values, repo))
    done.add(dvc_lock.sizes(lock, folders))
    done.add(_consistency(params, table, done))
    _costs(params, done)
    _recompute(params, recomputed, done)
    _forgotten(params, hashed, done)
    done.leaks = leaks.find(params, table) if table is not None else []
    done.notes += caveats.notes(params)
    done.findings.sort()
    done.images, done.seconds = len(table or ()), time.perf_counter() - start
    return done


def _lock(repo: Repository | None, done: Audit) -> tuple[dict[str, Any], Lock]:
    """Read dvc.lock as plain values and as a Lock, and check it against dvc.yaml and params.yaml."""
    if repo is None and not LOCK.exists():
        done.notes.append(f"not a DVC repository: no {LOCK} to check against")
        return {}, {}
    try:
        values = locks.load_yaml(LOCK)
        # `complete` makes no file; when it fails, dvc.lock keeps what it read when it last succeeded
        lock = {name: stage for name, stage in locks.of(values, str(LOCK)).items() if stage.outs}
    except StateError as error:
        done.add([Mismatch(str(LOCK), "what DVC can read", "; ".join(error.problems))])
        return {}, {}
    if repo is None:
        done.add([Mismatch(".dvc", f"the DVC repository that wrote {LOCK}", "none")])
        return values, lock
    if repo.problem:
        file = dvc_lock.DVC_YAML if dvc_lock.DVC_YAML.name in repo.problem else LOCK
        done.add([Mismatch(str(file), "what DVC can read", repo.problem)])
        return values, lock
    done.add(consistency.checked(partial(dvc_lock.differences, lock, repo), str(dvc_lock.DVC_YAML)))
    done.add([] if done.findings else dvc_lock.wording(values))
    if surplus := sorted(set(lock) - set(repo.stages)):
        done.notes.append(f"{LOCK} still holds stages that dvc.yaml no longer asks for: {', '.join(surplus)}")
    return values, {name: stage for name, stage in lock.items() if name not in surplus}


def _nodes(lock: Lock, done: Audit) -> dict[str, Node]:
    """Read the recorded chain if its bytes are those that DVC recorded."""
    if not LINEAGE.exists() and not lock:
        raise StateError(f"{LINEAGE}: missing, so there is nothing to check against; run `dvc repro`")
    wanted = {stage.outs[LINEAGE.as_posix()].md5 for stage in lock.values() if LINEAGE.as_posix() in stage.outs}
    if wanted and digests.digest(LINEAGE.as_posix(), "md5") not in wanted:
        return {}  # its checksum is checked later, and fails
    try:
        return dict(chain.read().nodes)
    except StateError as error:
        done.add([Mismatch(LINEAGE.as_posix(), "the record of a run", "; ".join(error.problems))])
        return {}


def _manifest(checksums: list[Checksum], done: Audit) -> Manifest | None:
    """Read the manifest if its bytes, and those of its stamp, are the recorded ones."""
    relevant = [one for one in checksums if one.locator in (MANIFEST.as_posix(), STAMP.as_posix())]
    if any(digests.digest(one.locator, one.algorithm) != one.digest for one in relevant):
        return None
    try:
        return manifest.read()
    except PipelineError as error:
        done.add([Mismatch(MANIFEST.as_posix(), "a manifest", "; ".join(error.problems))])
        return None


def _checksums(nodes: dict[str, Node], lock: Lock, repo: Repository | None) -> list[Checksum]:
    of_chain = [Checksum(name, "sha256", node.sha256, LINEAGE.as_posix()) for name, node in nodes.items()]
    of_objects = dvc_lock.object_checksums(lock, repo) if repo else []
    return [*of_chain, *dvc_lock.checksums(lock), *of_objects]


def _of_images(table: Manifest | None) -> list[Checksum]:
    if table is None:
        return []
    return [Checksum(path, "sha256", sha, str(MANIFEST)) for path, sha in zip(table.path, table.sha256, strict=True)]


def _of_shards(params: Params, done: Audit) -> list[Checksum]:
    """Return the sha256 that each of the cache's shards is named after, for the recipes of the listed backbones."""
    shards = []
    for backbone in params.run.backbones:
        try:
            facts = stamps.read(matrix.stamp_path(backbone)).facts
        except StateError:
            continue  # its checksum fails
        for recipe in filter(None, (facts.get(name) for name in ("recipe", "augmented_recipe"))):
            folder = params.embed.cache / stamps.sha256_json(recipe)
            inside = sorted(folder.glob("*.h5"))
            shards += inside
            if not inside:
                done.notes.append(f"{folder}: no cached row of {backbone}, so its matrix cannot be compared with them")
    return [Checksum(path.as_posix(), "sha256", path.stem, "its name") for path in shards]


def _hash(checksums: list[Checksum], folders: dict[str, Any], nodes: dict[str, Node], done: Audit) -> Digests:
    """Hash the files; a quick audit hashes stamps and manifest, and looks whether the others are there."""
    if done.quick:
        stamped = (name for name, node in nodes.items() if node.role == "stamp")
        small = {LINEAGE.as_posix(), MANIFEST.as_posix(), *stamped}
        for one in checksums:
            if one.locator not in small and not digests.exists(one.locator):
                done.add([Mismatch(one.locator, f"a file ({one.record})", MISSING)])
        checksums, folders = [one for one in checksums if one.locator in small], {}
    inside = [(file, "md5") for files in folders.values() for file in files]
    hashed = digests.read([*((one.locator, one.algorithm) for one in checksums), *inside])
    done.add(hashed.mismatches(checksums))
    done.files, done.bytes = hashed.files, hashed.bytes
    return hashed


def _consistency(params: Params, table: Manifest | None, done: Audit) -> list[Mismatch]:
    """Check that files agree with each other, wherever all files that a check reads are sound."""
    if table is None or done.quick:
        return []
    checks: list[tuple[list[Path], Callable[[], Iterator[Mismatch]]]] = [
        ([MANIFEST, STAMP], partial(consistency.images, params, table))
    ]
    scored = [schema.VERDICT, schema.SCORES, schema.STAMP]
    for backbone in params.run.backbones:
        files = [matrix.matrix_path(backbone), matrix.stamp_path(backbone), skipped.path_of(backbone)]
        checks.append((files, partial(consistency.embeddings, params, table, backbone)))
    failed = runs.failures(params.runs(), missing_ok=True)
    for backbone, name in (run for run in params.runs() if run not in failed):
        files = [
            runs.stamp_path(backbone, name),
            skipped.path_of(backbone),
            runs.metrics_path(backbone, name),
            predictions.path_of(backbone, name),
        ]
        checks.append((files, partial(consistency.run, table, backbone, name)))
        scored += files
    checks.append((scored, partial(consistency.scores, params)))
    found: list[Mismatch] = []
    for files, check in checks:
        if done.is_sound(*files):
            found += done.unexplained(consistency.checked(check, files[0].as_posix()))
    return found


def _costs(params: Params, done: Audit) -> None:
    for backbone in () if done.quick else params.run.backbones:
        files = [matrix.matrix_path(backbone), matrix.stamp_path(backbone), matrix.cost_path(backbone)]
        if done.is_sound(*files):
            check = partial(embedding_rows.costs, params, backbone)
            done.notes += map(str, done.unexplained(consistency.checked(check, files[2].as_posix())))


def _recompute(params: Params, number: int, done: Audit) -> None:
    for backbone in params.run.backbones if number else ():
        path = matrix.matrix_path(backbone)
        if done.is_sound(MANIFEST, STAMP, path, matrix.stamp_path(backbone)):
            counts = done.recomputed[backbone] = Recomputed()
            found = consistency.checked(partial(recompute, params, backbone, number, counts), path.as_posix())
            done.add(done.unexplained(found))


def _extra_files(params: Params, known: Iterable[str], done: Audit) -> None:
    done.add(extra_files.shadowing())
    findings, unlisted = extra_files.find(params, {*known, LINEAGE.as_posix()})
    done.add(findings)
    if unlisted:
        done.notes.append(f"{counted(len(unlisted), 'file')} of runs no longer listed, such as {unlisted[0]}")


def _forgotten(params: Params, hashed: Digests, done: Audit) -> None:
    if done.quick:
        done.notes.append("whether anything carries a forgotten image was not checked")
        return
    check = partial(forgotten_images.find, params, hashed.sha256s())
    done.findings += consistency.checked(check, EXCLUDED.as_posix())
