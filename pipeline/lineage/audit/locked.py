"""dvc.lock, value by value: against dvc.yaml and params.yaml, and what it promises of files, folders and objects."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import reduce
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML

from pipeline.core import locks, stamps
from pipeline.core.errors import StateError
from pipeline.core.locks import FOLDER_SUFFIX, LOCK, Entry, Lock, Locked, load_yaml
from pipeline.core.mismatches import Mismatch
from pipeline.core.params import PARAMS
from pipeline.core.verbs import STAGES
from pipeline.lineage.audit import objects
from pipeline.lineage.audit.contents import MISSING, Contents, Promise
from pipeline.lineage.audit.repository import Asked, Repository

FLOOR_PLAN = Path("dvc.yaml")
RUNS = "runs"
"""Beside DVC's objects: what it remembers of earlier runs."""


def differences(lock: Lock, repository: Repository) -> Iterator[Mismatch]:
    """Yield where the lock is not what DVC would write for the stages that are asked for and params.yaml as it is."""
    content, floor_plan = load_yaml(PARAMS), load_yaml(FLOOR_PLAN).get("stages", {})
    for name in STAGES:
        if name not in floor_plan:
            yield Mismatch(str(FLOOR_PLAN), "the stages of the pipeline", f"no {name}", name)
    for name, asked in repository.stages.items():
        if name in lock:
            yield from _of_stage(name, lock[name], asked, content)
        elif asked.outs:
            yield Mismatch(LOCK.as_posix(), "a stage, as dvc.yaml asks for it", "none; run `dvc repro`", f"{name}")


def surplus(lock: Lock, repository: Repository) -> list[str]:
    """Return the names of stages that the lock still holds and dvc.yaml no longer asks for."""
    return sorted(set(lock) - set(repository.stages))


def _of_stage(name: str, locked: Locked, asked: Asked, content: Any) -> Iterator[Mismatch]:  # noqa: ANN401
    if locked.cmd != asked.cmd:
        yield Mismatch(LOCK.as_posix(), repr(asked.cmd), repr(locked.cmd), f"{name}: cmd")
    for kind, listed, wanted in (("deps", locked.deps, asked.deps), ("outs", locked.outs, asked.outs)):
        for path in sorted(set(listed) ^ set(wanted)):
            expected, found = ("listed, as in dvc.yaml", "not") if path in wanted else ("not listed", "listed")
            yield Mismatch(LOCK.as_posix(), expected, found, f"{name}: {kind}: {path}")
    for file in sorted(set(locked.params) - {PARAMS.as_posix()}):
        yield Mismatch(LOCK.as_posix(), PARAMS.as_posix(), file, f"{name}: params")
    values = locked.params.get(PARAMS.as_posix(), {})
    for key in sorted(set(values) | asked.params):
        wanted, got = _value(content, key), values.get(key)
        if key not in asked.params or key not in values or not _same(wanted, got):
            found = f"{got!r}; run `dvc repro`, or take the edit back"
            yield Mismatch(LOCK.as_posix(), f"{wanted!r}, as in {PARAMS}", found, f"{name}: params: {key}")


def _value(content: Any, key: str) -> Any:  # noqa: ANN401  # whatever YAML can hold
    return reduce(
        lambda section, part: section.get(part) if isinstance(section, dict) else None, key.split("."), content
    )


def _same(one: Any, other: Any) -> bool:  # noqa: ANN401
    """Compare as JSON does, to which True and 1 differ."""
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str)


def wording(values: Mapping[str, Any]) -> Iterator[Mismatch]:
    """Yield a mismatch if the text of dvc.lock is not the text that DVC writes for its values."""
    if not _is_dvc_text(stamps.read_bytes(LOCK), values):
        yield Mismatch(str(LOCK), "the text that DVC writes for these values", "another")


def _is_dvc_text(content: bytes, values: Mapping[str, Any]) -> bool:
    """Return whether a file holds the one text that DVC writes for its values, so that no byte was altered.

    libyaml almost always gives that text, in a third of the time that DVC's own writer takes.
    """
    from dvc.utils.serialize import dumps_yaml  # noqa: PLC0415  # half a second

    writer, text = YAML(typ="safe"), BytesIO()
    writer.default_flow_style = writer.sort_base_mapping_type_on_output = False
    writer.dump(values, text)
    return text.getvalue() == content or dumps_yaml(values).encode() == content


# --- Files and folders -------------------------------------------------------------------------------------------


def entries(lock: Lock) -> Iterator[tuple[Entry, str]]:
    """Yield every dependency and output, with who says so."""
    for name, stage in lock.items():
        for kind in (stage.deps, stage.outs):
            yield from ((entry, f"{LOCK}: {name}") for entry in kind.values())


def promises(lock: Lock) -> Iterator[Promise]:
    """Yield what the lock says of files, those within folders that DVC's cache keeps among them."""
    for entry, by in entries(lock):
        if not is_folder(entry):
            yield Promise(entry.path, "md5", entry.md5, by)
        else:
            for inside, md5 in locks.folder_files(entry.md5).items():
                yield Promise(f"{entry.path}/{inside}", "md5", md5, by)


def is_folder(entry: Entry) -> bool:
    """Return whether an entry is a folder."""
    return entry.md5.endswith(FOLDER_SUFFIX)


def sizes(lock: Lock, files: Mapping[str, Sequence[str]]) -> Iterator[Mismatch]:
    """Yield the files and folders whose size is not the locked one, and entries that DVC writes only for others."""
    for entry, by in entries(lock):
        if entry.others.keys() - {"isexec"}:
            yield Mismatch(
                LOCK.as_posix(), "path, hash, md5, size and nfiles", f"also {dict(entry.others)}", f"{entry.path}"
            )
        inside = files.get(entry.path, [entry.path])
        here = [path for path in map(Path, inside) if path.is_file()]
        size = sum(path.stat().st_size for path in here)
        if here and (size, entry.nfiles or 1) != (entry.size, len(here)):
            yield Mismatch(
                entry.path, f"{entry.size} bytes in {entry.nfiles or 1} files ({by})", f"{size} in {len(here)}"
            )


def folders(lock: Lock, repository: Repository) -> dict[str, Sequence[str]]:
    """Return the locked folders, each with the files now in it."""
    return {entry.path: repository.files_in(entry.path) for entry, _ in entries(lock) if is_folder(entry)}


def broken_folders(
    lock: Lock,
    files: Mapping[str, Sequence[str]],
    contents: Contents,
    told: Sequence[Mismatch],
    images: Collection[str],
) -> Iterator[Mismatch]:
    """Yield the folders that hold other files than the lock says, unless altered or missing ones told already are all.

    A folder's md5 cannot say which of its files differ; their number can, and which are none of the known images.
    """
    found = {folder: _folder_entry(folder, inside, contents) for folder, inside in files.items()}
    seen = set()
    for entry, by in entries(lock):
        if is_folder(entry) and (entry.path, entry.md5, entry.size, entry.nfiles) not in seen:
            now = found[entry.path]
            seen.add((entry.path, entry.md5, entry.size, entry.nfiles))
            if (entry.md5, entry.size, entry.nfiles) != (now.md5, now.size, now.nfiles):
                inside = [one for one in told if one.path.startswith(f"{entry.path}/")]
                missing = sum(one.found == MISSING for one in inside)
                if not inside or (now.nfiles or 0) + missing != entry.nfiles:
                    beside = _beside(files[entry.path], images)
                    yield Mismatch(entry.path, f"{_worded(entry)} ({by})", _worded(now) + beside)


def _beside(files: Sequence[str], images: Collection[str]) -> str:
    """Name the files beside the images of a data folder."""
    others = [file for file in files if file not in images]
    if len(others) == len(files):
        return ""
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    return f"; beside the manifest's images: {', '.join(others[:5])}{more}"


def _worded(entry: Entry) -> str:
    return f"{entry.nfiles} files, {entry.size} bytes, md5 {entry.md5}"


def _folder_entry(folder: str, files: Sequence[str], contents: Contents) -> Entry:
    """Return a folder's entry as DVC writes it: the md5 is that of the list of its files' md5."""
    listed = [
        {"md5": contents.digests[file, "md5"], "relpath": PurePosixPath(file).relative_to(folder).as_posix()}
        for file in files
    ]
    listed.sort(key=lambda one: one["relpath"] or "")
    md5 = locks.md5_of(json.dumps(listed, sort_keys=True).encode())
    size = sum(path.stat().st_size for path in map(Path, files) if path.is_file())
    return Entry(folder, md5 + FOLDER_SUFFIX, size, len(files))


# --- DVC's cache -------------------------------------------------------------------------------------------------


def object_promises(lock: Lock, repository: Repository) -> list[Promise]:
    """Return what the names of objects promise: of all that the lock needs, and of all others in this repository."""
    needed: dict[str, str] = {}
    for name, stage in lock.items():
        kept = repository.stages[name].outs if name in repository.stages else {}
        for path, entry in stage.outs.items():
            if kept.get(path):
                by = f"{LOCK}: {name}: {path}"
                needed |= dict.fromkeys([entry.md5, *locks.folder_files(entry.md5).values()], by)
    # in a shared cache, others' objects are others' business
    others = () if objects.are_shared() else repository.objects.glob("[0-9a-f][0-9a-f]/*")
    present = {path.parent.name + path.name: "its name" for path in others if not path.name.endswith(".tmp")}
    return [
        Promise(_object(repository, md5), "md5", md5.removesuffix(FOLDER_SUFFIX), by)
        for md5, by in sorted((present | needed).items())
    ]


def _object(repository: Repository, md5: str) -> str:
    return locks.shown(repository.objects / md5[:2] / md5[2:])


def run_cache(values: Mapping[str, Any], repository: Repository) -> Iterator[Mismatch]:
    """Yield the files of DVC's run-cache whose values do not have the hash that is the file's name.

    The hash leaves sizes out, so the values of dvc.lock, if they have that hash, decide what the text must be.
    """
    stages = {_run_hash(stage): stage for stage in values.get("stages", {}).values()}
    for path in sorted((repository.objects.parents[1] / RUNS).glob("*/*/*")):
        if len(path.name) == 64 and not _is_run(path, stages.get(path.name)):
            yield Mismatch(locks.shown(path), "the run that its name is the hash of", "another")


def _is_run(path: Path, stage: Mapping[str, Any] | None) -> bool:
    try:
        run = load_yaml(path) if stage is None else stage
        return _run_hash(run) == path.name and _is_dvc_text(stamps.read_bytes(path), run)
    except StateError:
        return False


def _run_hash(stage: Mapping[str, Any]) -> str:
    from dvc.utils import dict_sha256  # noqa: PLC0415

    try:
        return str(dict_sha256(stage, exclude=["size", "nfiles"]))
    except TypeError:  # it holds what JSON cannot, such as a date
        return ""
