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
from pipeline.data import manifest
from pipeline.data.exclusions import EXCLUDED
from pipeline.data.manifest import MANIFEST, STAMP, Manifest
from pipeline.embeddings import matrix, skipped
from pipeline.evaluation import runs
from pipeline.evaluation.scoring import predictions
from pipeline.lineage import chain
from pipeline.lineage.audit import cached, contents, forgotten, locked, repository, rows, unrecorded, vouching
from pipeline.lineage.audit.contents import MISSING, Contents, Promise
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
    """Between splits, and conflicts: nothing that anybody altered."""
    notes: list[str] = field(default_factory=list)
    """What cannot be vouched for, and what is worth knowing."""
    recomputed: dict[str, Recomputed] = field(default_factory=dict)
    """By backbone."""
    files: int = 0
    images: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def found(self, findings: Iterable[Mismatch]) -> None:
        """Add findings, but those on a file that has one already, or on a folder with such a file."""
        told = {place for finding in self.findings for place in _places(finding)}
        for finding in sorted(findings, key=lambda one: -one.path.count("/")):
            if finding.place not in told:
                self.findings.append(finding)
                told.update(_places(finding))

    def sound(self, *paths: Path) -> bool:
        """Return whether nothing was found on any of some files."""
        told = {finding.path for finding in self.findings}
        return not told & {path.as_posix() for path in paths}

    def content(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {"schema_version": SCHEMA_VERSION, "altered": bool(self.findings), **asdict(self)}


def _places(finding: Mismatch) -> set[str]:
    """Return what is told of: a part, or a whole file; and all folders above it."""
    return {finding.place, *map(str, PurePosixPath(finding.path).parents)}


def audit(params: Params, *, quick: bool = False, recomputed: int = 0) -> Audit:
    """Check everything; every finding is gathered, and nothing is parsed whose bytes are not the recorded ones.

    Args:
        params: whose runs make up the chain.
        quick: check structure, stamps and sizes, and read no other file in full.
        recomputed: how many rows of every matrix to compute again.

    Raises:
        StateError: if there is no record to check against.

    """
    start = time.perf_counter()
    done = Audit(quick)
    with repository.opened() as opened:
        values, lock = _lock(opened, done)
        nodes = _nodes(lock, done)
        promised = _promises(nodes, lock, opened)
        table = _manifest(promised, done)
        promised += [*_of_images(table), *_of_shards(params, done)]
        folders = locked.folders(lock, opened) if opened else {}
        hashed = _hash(promised, folders, nodes, done)
        _extra_files(params, (promise.locator for promise in promised), done)
        if opened and not quick:
            images = set(table.path) if table else set()
            done.findings += list(locked.broken_folders(lock, folders, hashed, done.findings, images))
            done.found(locked.run_cache(values, opened))
    done.found(locked.sizes(lock, folders))
    done.found(_structure(params, table, done))
    _costs(params, done)
    _recompute(params, recomputed, done)
    _forgotten(params, hashed, done)
    done.leaks = leaks.find(params, table) if table is not None else []
    done.notes += vouching.notes(params)
    done.findings.sort()
    done.images, done.seconds = len(table or ()), time.perf_counter() - start
    return done


def _lock(opened: Repository | None, done: Audit) -> tuple[dict[str, Any], Lock]:
    """Read dvc.lock, as plain values and as a Lock, and check them; what is wrong is found, not raised."""
    if opened is None and not LOCK.exists():
        done.notes.append(f"not a DVC repository: no {LOCK} to check against")
        return {}, {}
    try:
        values = locks.load_yaml(LOCK)
        # `complete` makes nothing, and where it fails the lock still has what it read the last time it did not
        lock = {name: stage for name, stage in locks.of(values, str(LOCK)).items() if stage.outs}
    except StateError as error:
        done.found([Mismatch(str(LOCK), "what DVC can read", "; ".join(error.problems))])
        return {}, {}
    if opened is None:
        done.found([Mismatch(".dvc", f"the DVC repository that wrote {LOCK}", "none")])
        return values, lock
    if opened.problem:
        file = locked.FLOOR_PLAN if locked.FLOOR_PLAN.name in opened.problem else LOCK
        done.found([Mismatch(str(file), "what DVC can read", opened.problem)])
        return values, lock
    done.found(rows.checked(partial(locked.differences, lock, opened), str(locked.FLOOR_PLAN)))
    done.found([] if done.findings else locked.wording(values))
    if left := locked.surplus(lock, opened):
        done.notes.append(f"{LOCK} still holds stages that dvc.yaml no longer asks for: {', '.join(left)}")
    return values, {name: stage for name, stage in lock.items() if name not in left}


def _nodes(lock: Lock, done: Audit) -> dict[str, Node]:
    """Read the recorded chain, if its bytes are those that DVC knows."""
    if not LINEAGE.exists() and not lock:
        raise StateError(f"{LINEAGE}: missing, so there is nothing to check against; run `dvc repro`")
    wanted = {stage.outs[LINEAGE.as_posix()].md5 for stage in lock.values() if LINEAGE.as_posix() in stage.outs}
    if wanted and contents.digest(LINEAGE.as_posix(), "md5") not in wanted:
        return {}  # its promise is broken, and says so
    try:
        return dict(chain.read().nodes)
    except StateError as error:
        done.found([Mismatch(LINEAGE.as_posix(), "the record of a run", "; ".join(error.problems))])
        return {}


def _manifest(promised: list[Promise], done: Audit) -> Manifest | None:
    """Read the manifest if it and its stamp are what was recorded of them."""
    of_it = [one for one in promised if one.locator in (MANIFEST.as_posix(), STAMP.as_posix())]
    if any(contents.digest(one.locator, one.algorithm) != one.digest for one in of_it):
        return None
    try:
        return manifest.read()
    except PipelineError as error:
        done.found([Mismatch(MANIFEST.as_posix(), "a manifest", "; ".join(error.problems))])
        return None


def _promises(nodes: dict[str, Node], lock: Lock, opened: Repository | None) -> list[Promise]:
    of_chain = [Promise(name, "sha256", node.sha256, LINEAGE.as_posix()) for name, node in nodes.items()]
    objects = locked.object_promises(lock, opened) if opened else []
    return [*of_chain, *locked.promises(lock), *objects]


def _of_images(table: Manifest | None) -> list[Promise]:
    if table is None:
        return []
    return [Promise(path, "sha256", sha, str(MANIFEST)) for path, sha in zip(table.path, table.sha256, strict=True)]


def _of_shards(params: Params, done: Audit) -> list[Promise]:
    """Return what the names of the cache's shards promise, of all recipes that the listed backbones' rows have."""
    shards = []
    for backbone in params.run.backbones:
        try:
            facts = stamps.read(matrix.stamp_path(backbone)).facts
        except StateError:
            continue  # its own promise is broken, and says so
        for recipe in filter(None, (facts.get(name) for name in ("recipe", "augmented_recipe"))):
            folder = params.embed.cache / stamps.sha256_json(recipe)
            inside = sorted(folder.glob("*.h5"))
            shards += inside
            if not inside:
                done.notes.append(f"{folder}: no cached row of {backbone}, so its matrix cannot be compared with them")
    return [Promise(path.as_posix(), "sha256", path.stem, "its name") for path in shards]


def _hash(promised: list[Promise], folders: dict[str, Any], nodes: dict[str, Node], done: Audit) -> Contents:
    """Read the files; a quick audit reads stamps and manifest, and looks whether the others are there."""
    if done.quick:
        small = {
            LINEAGE.as_posix(),
            MANIFEST.as_posix(),
            *(name for name, node in nodes.items() if node.role == "stamp"),
        }
        for one in promised:
            if one.locator not in small and not contents.exists(one.locator):
                done.found([Mismatch(one.locator, f"a file ({one.by})", MISSING)])
        promised, folders = [one for one in promised if one.locator in small], {}
    listed = [(file, "md5") for files in folders.values() for file in files]
    hashed = contents.read([*((one.locator, one.algorithm) for one in promised), *listed])
    done.found(hashed.broken(promised))
    done.files, done.bytes = hashed.files, hashed.bytes
    return hashed


def _structure(params: Params, table: Manifest | None, done: Audit) -> list[Mismatch]:
    """Check what values say of each other, wherever the files that hold them are sound."""
    found: list[Mismatch] = []
    if table is None or done.quick:
        return found
    checks: list[tuple[list[Path], Callable[[], Iterator[Mismatch]]]] = [
        ([MANIFEST, STAMP], partial(rows.images, params, table))
    ]
    scored = [schema.VERDICT, schema.SCORES, schema.STAMP]
    for backbone in params.run.backbones:
        files = [matrix.matrix_path(backbone), matrix.stamp_path(backbone), skipped.path_of(backbone)]
        checks.append((files, partial(rows.embeddings, params, table, backbone)))
    failed = runs.failed(params.runs(), missing_ok=True)
    for backbone, name in (run for run in params.runs() if run not in failed):
        files = [
            runs.stamp_path(backbone, name),
            skipped.path_of(backbone),
            runs.metrics_path(backbone, name),
            predictions.path_of(backbone, name),
        ]
        checks.append((files, partial(rows.run, table, backbone, name)))
        scored += files
    checks.append((scored, partial(rows.scores, params)))
    for files, check in checks:
        if done.sound(*files):
            found += rows.checked(check, files[0].as_posix())
    return found


def _costs(params: Params, done: Audit) -> None:
    for backbone in () if done.quick else params.run.backbones:
        files = [matrix.matrix_path(backbone), matrix.stamp_path(backbone), matrix.cost_path(backbone)]
        if done.sound(*files):
            check = partial(cached.costs, params, backbone)
            done.notes += map(str, rows.checked(check, files[2].as_posix()))


def _recompute(params: Params, number: int, done: Audit) -> None:
    for backbone in params.run.backbones if number else ():
        path = matrix.matrix_path(backbone)
        if done.sound(MANIFEST, STAMP, path, matrix.stamp_path(backbone)):
            told = done.recomputed[backbone] = Recomputed()
            done.found(rows.checked(partial(recompute, params, backbone, number, told), path.as_posix()))


def _extra_files(params: Params, known: Iterable[str], done: Audit) -> None:
    done.found(unrecorded.shadowing())
    findings, left = unrecorded.find(params, {*known, LINEAGE.as_posix()})
    done.found(findings)
    if left:
        done.notes.append(f"{len(left)} files of runs no longer listed, such as {left[0]}")


def _forgotten(params: Params, hashed: Contents, done: Audit) -> None:
    if done.quick:
        done.notes.append("whether anything carries a forgotten image was not looked for")
        return
    check = partial(forgotten.find, params, hashed.sha256s())
    done.findings += rows.checked(lambda: iter(check()), EXCLUDED.as_posix())
