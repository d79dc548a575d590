"""Check dvc.lock value by value against dvc.yaml and params.yaml, and files, folders and objects against dvc.lock."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
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
from pipeline.lineage.audit.digests import MISSING, Checksum, Digests
from pipeline.lineage.audit.repository import Repository, Stage

DVC_YAML = Path("dvc.yaml")
RUNS = "runs"
"""Beside DVC's objects: its run-cache."""


def differences(lock: Lock, repository: Repository) -> Iterator[Mismatch]:
    """Yield where the lock is not what DVC would write for the stages in dvc.yaml and the values in params.yaml."""
    content, listed = load_yaml(PARAMS), load_yaml(DVC_YAML).get("stages", {})
    for name in STAGES:
        if name not in listed:
            yield Mismatch(str(DVC_YAML), "the stages of the pipeline", f"no {name}", name)
    for name, expected in repository.stages.items():
        if name in lock:
            yield from _of_stage(name, lock[name], expected, content)
        elif expected.outs:
            yield Mismatch(LOCK.as_posix(), "a stage, as dvc.yaml asks for it", "none; run `dvc repro`", name)


def _of_stage(name: str, found: Locked, expected: Stage, content: Any) -> Iterator[Mismatch]:  # noqa: ANN401
    lock = LOCK.as_posix()
    if found.cmd != expected.cmd:
        yield Mismatch(lock, repr(expected.cmd), repr(found.cmd), f"{name}: cmd")
    for kind, listed, wanted in (("deps", found.deps, expected.deps), ("outs", found.outs, expected.outs)):
        for path in sorted(set(listed) ^ set(wanted)):
            words = ("listed, as in dvc.yaml", "not") if path in wanted else ("not listed", "listed")
            yield Mismatch(lock, *words, f"{name}: {kind}: {path}")
    for file in sorted(set(found.params) - {PARAMS.as_posix()}):
        yield Mismatch(lock, PARAMS.as_posix(), file, f"{name}: params")
    values = found.params.get(PARAMS.as_posix(), {})
    for key in sorted(set(values) | expected.params):
        wanted, got = _value(content, key), values.get(key)
        if key not in expected.params or key not in values or not _same(wanted, got):
            said = f"{got!r}; run `dvc repro`, or take the edit back"
            yield Mismatch(lock, f"{wanted!r}, as in {PARAMS}", said, f"{name}: params: {key}")


def _value(content: Any, key: str) -> Any:  # noqa: ANN401  # whatever YAML can hold
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _same(one: Any, other: Any) -> bool:  # noqa: ANN401
    """Compare as JSON, in which True and 1 differ."""
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

    writer: Any = YAML(typ="safe")
    writer.default_flow_style = writer.sort_base_mapping_type_on_output = False
    text = BytesIO()
    writer.dump(values, text)
    return text.getvalue() == content or dumps_yaml(values).encode() == content


# --- Files and folders -------------------------------------------------------------------------------------------


def entries(lock: Lock) -> Iterator[tuple[Entry, str]]:
    """Yield every dependency and output, each with the name of its record."""
    for name, stage in lock.items():
        for entry in (*stage.deps.values(), *stage.outs.values()):
            yield entry, f"{LOCK}: {name}"


def checksums(lock: Lock) -> Iterator[Checksum]:
    """Yield the md5 of every file in the lock, and of the files in every folder whose list DVC's cache holds."""
    for entry, record in entries(lock):
        if not is_folder(entry):
            yield Checksum(entry.path, "md5", entry.md5, record)
        else:
            for inside, md5 in locks.folder_files(entry.md5).items():
                yield Checksum(f"{entry.path}/{inside}", "md5", md5, record)


def is_folder(entry: Entry) -> bool:
    """Return whether an entry is a folder."""
    return entry.md5.endswith(FOLDER_SUFFIX)


def sizes(lock: Lock, files: Mapping[str, Sequence[str]]) -> Iterator[Mismatch]:
    """Yield files and folders that do not have the size in the lock, and entries with keys of remote files."""
    for entry, record in entries(lock):
        if entry.others.keys() - {"isexec"}:
            keys = "path, hash, md5, size and nfiles"
            yield Mismatch(LOCK.as_posix(), keys, f"also {dict(entry.others)}", entry.path)
        here = [path for path in map(Path, files.get(entry.path, [entry.path])) if path.is_file()]
        size, number = sum(path.stat().st_size for path in here), entry.nfiles or 1
        if here and (size, number) != (entry.size, len(here)):
            expected = f"{entry.size} bytes in {number} files ({record})"
            yield Mismatch(entry.path, expected, f"{size} in {len(here)}")


def folders(lock: Lock, repository: Repository) -> dict[str, Sequence[str]]:
    """Return the folders in the lock, each with the files now in it."""
    return {entry.path: repository.files_in(entry.path) for entry, _ in entries(lock) if is_folder(entry)}


def changed_folders(
    lock: Lock,
    files: Mapping[str, Sequence[str]],
    digests: Digests,
    findings: Sequence[Mismatch],
    images: Collection[str],
) -> Iterator[Mismatch]:
    """Yield folders that are not as in the lock, unless `findings` on files inside explain all of the change.

    A folder's md5 does not say which files changed. Extra files show by their number, and by not being known images.
    """
    recorded: dict[tuple[object, ...], tuple[Entry, str]] = {}
    for entry, record in entries(lock):
        if is_folder(entry):
            recorded.setdefault(_values(entry), (entry, record))
    now = {folder: _folder_entry(folder, inside, digests) for folder, inside in files.items()}
    for entry, record in recorded.values():
        found = now[entry.path]
        if _values(found) == _values(entry):
            continue
        explained = [one for one in findings if one.path.startswith(f"{entry.path}/")]
        missing = sum(one.found == MISSING for one in explained)
        if not explained or (found.nfiles or 0) + missing != entry.nfiles:
            others = _others(files[entry.path], images)
            yield Mismatch(entry.path, f"{_description(entry)} ({record})", _description(found) + others)


def _others(files: Sequence[str], images: Collection[str]) -> str:
    """Name the files in a data folder that are no images of the manifest."""
    others = [file for file in files if file not in images]
    if len(others) == len(files):
        return ""
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    return f"; beside the manifest's images: {', '.join(others[:5])}{more}"


def _values(entry: Entry) -> tuple[object, ...]:
    return entry.path, entry.md5, entry.size, entry.nfiles


def _description(entry: Entry) -> str:
    return f"{entry.nfiles} files, {entry.size} bytes, md5 {entry.md5}"


def _folder_entry(folder: str, files: Sequence[str], digests: Digests) -> Entry:
    """Return a folder's entry as DVC writes it: its md5 is that of a JSON list of the md5s of its files."""
    listed = [
        {"md5": digests.found[file, "md5"], "relpath": PurePosixPath(file).relative_to(folder).as_posix()}
        for file in files
    ]
    listed.sort(key=lambda one: one["relpath"] or "")
    md5 = locks.md5_of(json.dumps(listed, sort_keys=True).encode())
    size = sum(path.stat().st_size for path in map(Path, files) if path.is_file())
    return Entry(folder, md5 + FOLDER_SUFFIX, size, len(files))


# --- DVC's cache -------------------------------------------------------------------------------------------------


def object_checksums(lock: Lock, repository: Repository) -> list[Checksum]:
    """Return the md5 that each object in DVC's cache is named after: those that the lock needs, and this project's."""
    needed: dict[str, str] = {}
    for name, stage in lock.items():
        cached = repository.stages[name].outs if name in repository.stages else {}
        for path, entry in stage.outs.items():
            if cached.get(path):
                md5s = [entry.md5, *locks.folder_files(entry.md5).values()]
                needed |= dict.fromkeys(md5s, f"{LOCK}: {name}: {path}")
    # what else lies in a cache that projects share belongs to the other projects
    others = () if objects.are_shared() else repository.objects.glob("[0-9a-f][0-9a-f]/*")
    present = {path.parent.name + path.name: "its name" for path in others if not path.name.endswith(".tmp")}
    return [
        Checksum(locks.shown(repository.objects / md5[:2] / md5[2:]), "md5", md5.removesuffix(FOLDER_SUFFIX), record)
        for md5, record in sorted((present | needed).items())
    ]


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
    except TypeError:  # of a value that JSON does not know, such as a date
        return ""
