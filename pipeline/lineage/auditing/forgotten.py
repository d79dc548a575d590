"""The proof that nothing carries a forgotten image any more: not a row, not a model, not an object in DVC's cache."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline import exclusions, manifest, runs, stamps
from pipeline.embeddings import matrix, upkeep
from pipeline.errors import StateError
from pipeline.lineage.auditing import objects
from pipeline.lineage.findings import Finding
from pipeline.manifest import MANIFEST
from pipeline.params import Params

NOTHING = "nothing of a forgotten image"
STAMPS = ("models/*/*/run.json", "curves/*.json", "survey/*.json", "data/thumbnails.json")
"""Of what stages make from the images' manifest, whether or not it is still listed in params."""


def find(params: Params, hashed: Mapping[str, str] | None = None) -> list[Finding]:
    """Return all that carries a forgotten image or cannot be shown not to, sorted; nothing forgotten is no work.

    Args:
        params: where data and cache are.
        hashed: path -> sha256 of files whose bytes the caller has read already.

    Raises:
        InputError: if the list of excluded images is malformed.
        StateError: if a dvc.lock is.

    """
    gone = exclusions.forgotten()
    if not gone:
        return []
    images = hashes(gone)
    checks: list[Callable[[], Iterator[Finding]]] = [
        partial(_raw, params.data.path, set(gone), hashed or {}),
        partial(_listed, set(gone)),
        partial(_matrices, images),
        partial(_shards, params.embed.cache, images),
        _made_before,
        _checkpoints,
        partial(_objects, params.data.path, set(gone)),
    ]
    return sorted({finding for check in checks for finding in check()})


def hashes(sha256: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return hexadecimal hashes as the cache and the matrices hold them: (n, 32)."""
    return np.frombuffer(b"".join(map(bytes.fromhex, sha256)), np.uint8).reshape(-1, 32)


def raw_files(folder: Path, gone: set[str], hashed: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield path and sha256 of the files in the data folder that have an image's bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor() as pool:  # hashlib releases the interpreter's lock
        found = pool.map(lambda path: hashed.get(path.as_posix()) or _hash(path), files)
        yield from ((path.as_posix(), sha) for path, sha in zip(files, found, strict=True) if sha in gone)


def _hash(path: Path) -> str:
    try:
        return stamps.sha256_file(path)
    except StateError:  # gone meanwhile, or not to be read
        return ""


def _raw(folder: Path, gone: set[str], hashed: Mapping[str, str]) -> Iterator[Finding]:
    for path, sha256 in raw_files(folder, gone, hashed):
        yield Finding(path, NOTHING, f"all its bytes (sha256 {sha256[:10]}...); delete the file")


def _listed(gone: set[str]) -> Iterator[Finding]:
    try:
        table = manifest.read()
    except StateError:
        return  # told by the check of the chain
    rows = [name for name, sha256 in zip(table.image_id, table.sha256, strict=True) if sha256 in gone]
    if rows:
        yield Finding(str(MANIFEST), NOTHING, f"{len(rows)} rows, such as {rows[0]}; run `dvc repro`")


def _matrices(images: npt.NDArray[np.uint8]) -> Iterator[Finding]:
    for path in sorted(matrix.matrix_path("x").parent.glob("*.h5")):
        try:
            held = upkeep.comparable(matrix.read(path.stem).sha256)
        except StateError as error:
            yield _unreadable(path, error)
        else:
            if rows := int(np.isin(held, upkeep.comparable(images)).sum()):
                yield Finding(path.as_posix(), NOTHING, f"{rows} rows; run `headswap forget` again")


def _shards(root: Path, images: npt.NDArray[np.uint8]) -> Iterator[Finding]:
    """Look into every shard of every recipe; what a killed writer left may hold what it was writing."""
    for path in sorted(root.glob("*/*.h5")):
        try:
            rows = int(upkeep.held(path, images).sum())
        except StateError as error:
            yield _unreadable(path, error)
        else:
            if rows:
                yield Finding(path.as_posix(), NOTHING, f"{rows} rows; run `headswap forget` again")
    for path in sorted([*root.glob("*/.*.tmp"), *matrix.matrix_path("x").parent.glob(".*.tmp")]):
        yield Finding(path.as_posix(), NOTHING, "what a killed writer left; delete it")


def _unreadable(path: Path, error: StateError) -> Finding:
    return Finding(path.as_posix(), NOTHING, f"what cannot be read to show it ({error}); delete it")


def _made_before() -> Iterator[Finding]:
    """Yield what was made from another manifest than today's, such as a run that is no longer listed."""
    if not MANIFEST.exists():
        return
    now = stamps.sha256_file(MANIFEST)
    for path in sorted(path for pattern in STAMPS for path in Path().glob(pattern)):
        try:
            made_from = stamps.read(path).inputs.get(MANIFEST.as_posix())
        except StateError as error:
            yield _unreadable(path, error)
        else:
            if made_from != now:
                yield Finding(path.as_posix(), NOTHING, f"made from an older {MANIFEST}; run `dvc repro`, or delete it")


def _checkpoints() -> Iterator[Finding]:
    """Yield the states of trainings that began before the manifest was written."""
    for folder in sorted(runs.CHECKPOINTS.glob("*")) if MANIFEST.exists() else ():
        times = [path.stat().st_mtime for path in folder.iterdir()]
        if times and min(times) < MANIFEST.stat().st_mtime:
            yield Finding(folder.as_posix(), NOTHING, f"a training older than {MANIFEST}; delete it")


def _objects(folder: Path, gone: set[str]) -> Iterator[Finding]:
    """Yield the objects in DVC's cache that are no output of a stage whose manifest is free of the images."""
    known = objects.outputs(gone)
    free = known.free | set(objects.of_raw_data(folder, gone))
    described = {md5: f"{one.path} of {one.where}, made from it" for one in known.carrying for md5 in one.objects}
    for md5, path in objects.all_of():
        if md5 not in free:
            found = described.get(md5, "an object that may carry one")
            yield Finding(_shown(path), NOTHING, f"{found}; run `dvc gc --workspace`")


def _shown(path: Path) -> str:
    return (path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path).as_posix()
