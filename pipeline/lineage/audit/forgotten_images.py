"""Prove that nothing carries a forgotten image any more: no row, no model, no object in DVC's cache."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.core import artifacts, stamps
from pipeline.core.atomic import still_there
from pipeline.core.errors import StateError
from pipeline.core.locks import shown
from pipeline.core.mismatches import Mismatch
from pipeline.core.params import Params
from pipeline.core.sections import STORE, Data
from pipeline.data import exclusions, manifest
from pipeline.data.manifest import MANIFEST
from pipeline.data.sources import memo, store
from pipeline.embeddings import indexes, matrix, upkeep
from pipeline.embeddings.shards import keys_of, sha256_of
from pipeline.lineage.audit import carriers, objects

NOTHING = "nothing of a forgotten image"
SHARED = "run `dvc gc --workspace --projects ...` with all projects that share this cache, or ask them"
"""Without `--projects`, `dvc gc` would remove what only the other projects need."""


def find(params: Params, hashed: Mapping[str, str] | None = None) -> list[Mismatch]:
    """Return all that carries a forgotten image, or may carry one, sorted.

    Args:
        params: where data and cache are.
        hashed: path -> sha256 of files that the caller has hashed already.

    Raises:
        InputError: if the list of excluded images is malformed.
        StateError: if dvc.lock in the working tree or DVC's configuration is.

    """
    gone = exclusions.forgotten()
    if not gone:
        return []
    images = sha256_of(keys_of(gone))
    checks: list[Callable[[], Iterator[Mismatch]]] = [
        partial(_raw, params.data, set(gone), hashed or {}),
        partial(_stored, set(gone)),
        partial(_manifest, set(gone)),
        partial(_matrices, images),
        *(partial(_shards, root, images) for root in carriers.caches(params)),
        _older,
        _old_checkpoints,
        partial(_objects, params.data, set(gone)),
    ]
    return sorted({finding for check in checks for finding in check()})


def _raw(data: Data, gone: set[str], hashed: Mapping[str, str]) -> Iterator[Mismatch]:
    remedy = "make the archive anew without it" if data.is_archive else "delete the file"
    for path, sha256 in carriers.raw_files(data, gone, hashed):
        yield Mismatch(path, NOTHING, f"all its bytes (sha256 {sha256[:10]}...); {remedy}")


def _stored(gone: set[str]) -> Iterator[Mismatch]:
    """Check the store of images, the memo of their names, and temporary files of a killed `prepare`."""
    for path in store.remove(gone, dry=True):
        yield Mismatch(path.as_posix(), NOTHING, "all its bytes; run `headswap forget` again")
    if rows := memo.forget(gone, dry=True):
        yield Mismatch(memo.MEMO.as_posix(), NOTHING, f"{rows} names; run `headswap forget` again")
    for path in sorted(STORE.glob(".*.tmp")):
        yield Mismatch(path.as_posix(), NOTHING, "a temporary file of a killed writer; delete it")


def _manifest(gone: set[str]) -> Iterator[Mismatch]:
    try:
        table = manifest.read()
    except StateError:
        return  # the check of the chain reports it
    rows = [name for name, sha256 in zip(table.image_id, table.sha256, strict=True) if sha256 in gone]
    if rows:
        yield Mismatch(str(MANIFEST), NOTHING, f"{len(rows)} rows, such as {rows[0]}; run `dvc repro`")


def _matrices(images: npt.NDArray[np.uint8]) -> Iterator[Mismatch]:
    for path in artifacts.EMBEDDINGS.here():
        try:
            held = matrix.comparable(matrix.read(path.stem).sha256)
        except StateError as error:
            yield _unreadable(path, error)
        else:
            if rows := int(np.isin(held, matrix.comparable(images)).sum()):
                yield Mismatch(path.as_posix(), NOTHING, f"{rows} rows; run `headswap forget` again")


def _shards(root: Path, images: npt.NDArray[np.uint8]) -> Iterator[Mismatch]:
    """Check every shard of every recipe, the indexes, and temporary files of a killed writer."""
    for path in sorted(root.glob("*/*.h5")):
        try:
            rows = int(upkeep.held(path, images).sum())
        except StateError as error:
            yield _unreadable(path, error)
        else:
            if rows:
                yield Mismatch(path.as_posix(), NOTHING, f"{rows} rows; run `headswap forget` again")
    for path in sorted(root.glob(f"*/*{indexes.SUFFIX}")):
        named = [entry.keys for entry in indexes.entries_of(path).values()]
        if named and np.isin(matrix.comparable(sha256_of(np.concatenate(named))), matrix.comparable(images)).any():
            yield Mismatch(path.as_posix(), NOTHING, "an index that names it; run `headswap forget` again")
    for path in sorted([*root.glob("*/.*.tmp"), *matrix.matrix_path("x").parent.glob(".*.tmp")]):
        yield Mismatch(path.as_posix(), NOTHING, "a temporary file of a killed writer; delete it")


def _unreadable(path: Path, error: StateError) -> Mismatch:
    return Mismatch(path.as_posix(), NOTHING, f"a file that cannot be read ({error}); delete it")


def _older() -> Iterator[Mismatch]:
    """Yield what was made from another manifest than the current one, such as a run that is no longer listed."""
    if not MANIFEST.exists():
        return
    now = stamps.sha256_file(MANIFEST)
    for one in carriers.derived():
        if isinstance(one.stamp, StateError):
            yield _unreadable(one.stamp_path, one.stamp)
        elif one.stamp.inputs.get(MANIFEST.as_posix()) != now:
            found = f"made from an older {MANIFEST}; run `dvc repro`, or delete it"
            yield Mismatch(one.stamp_path.as_posix(), NOTHING, found)


def _old_checkpoints() -> Iterator[Mismatch]:
    """Yield the checkpoints of trainings that began before the manifest was written."""
    for folder in carriers.checkpoints() if MANIFEST.exists() else ():
        times = [looks.st_mtime for _, looks in still_there(folder.glob("*"))]
        if times and min(times) < MANIFEST.stat().st_mtime:
            yield Mismatch(folder.as_posix(), NOTHING, f"a training older than {MANIFEST}; delete it")


def _objects(data: Data, gone: set[str]) -> Iterator[Mismatch]:
    """Yield the objects in DVC's cache, except outputs of stages whose manifest lists none of the images.

    Most objects in a shared cache are other projects': there, only those known to come from an image are yielded.
    """
    known, raw = objects.outputs(gone), objects.of_raw_data(data, gone)
    described = {md5: f"{one.path} of {one.where}, made from it" for one in known.carrying for md5 in one.objects}
    described |= {md5: "all its bytes" for md5, is_image in raw.items() if is_image}
    free, shared = known.free | {md5 for md5, is_image in raw.items() if not is_image}, objects.are_shared()
    for md5, path in objects.all_of():
        if md5 not in free and (md5 in described or not shared):
            found = described.get(md5, "an object that may carry one")
            yield Mismatch(shown(path), NOTHING, f"{found}; {SHARED if shared else 'run `dvc gc --workspace`'}")
