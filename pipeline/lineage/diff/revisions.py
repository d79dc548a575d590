"""A revision as `diff` reads it: its dvc.lock, the files that git keeps, and those that DVC's cache still holds."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.core import artifacts, git, locks, stamps
from pipeline.core.errors import InputError, StateError
from pipeline.core.locks import Entry, Lock, Locked
from pipeline.data import manifest
from pipeline.data.manifest import COLUMNS, Manifest
from pipeline.embeddings import matrix, skipped
from pipeline.evaluation import runs
from pipeline.verdict import schema

PARAMS = "params.yaml"
FACTS = ("recipe", "augmented_recipe", "skipped", "made_with")
"""Facts in a stamp that must be mappings."""
_WORKING_TREE = "the working tree"


@dataclass(frozen=True)
class Revision:
    """A commit, or the working tree."""

    name: str
    commit: str | None
    """None for the working tree."""
    lock: Lock
    altered: set[str] = field(default_factory=set)
    """A line for each file that was read and is not what the lock holds; its content is not used."""

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Dotted name -> value of everything in params.yaml that a stage depended on."""
        found: dict[str, Any] = {}
        for stage in self.lock.values():
            found |= flat_params(stage)
        return found

    @property
    def metric(self) -> str | None:
        """The metric that every choice maximised."""
        return self.settings.get("selection.metric")

    @cached_property
    def runs(self) -> Mapping[str, str]:
        """<backbone>/<name> -> stage of every run, without those in the lock that were no longer listed."""
        found = dict[str, str]()
        for stage, locked in self.lock.items():
            models = [Path(path) for path in locked.outs if artifacts.MODEL.is_at(path)]
            found |= {f"{path.parent.name}/{path.name}": stage for path in models}
        if "compare" not in self.lock:
            return found
        asked = flat_params(self.lock["compare"])
        names = [*asked.get("run.heads", ()), *asked.get("run.plans", ())]
        listed = [f"{backbone}/{name}" for backbone in asked.get("run.backbones", ()) for name in names]
        return {run: found[run] for run in listed if run in found}

    def out(self, path: Path) -> Entry | None:
        """Return the lock's entry of an output, or of the output folder that holds it."""
        for stage in self.lock.values():
            for name, entry in stage.outs.items():
                if path.is_relative_to(name):
                    return entry
        return None

    def md5(self, path: Path) -> str | None:
        """Return the md5 of an output: of its bytes in the working tree, else as in the lock."""
        if self.commit is None and path.is_file():
            return locks.md5_of(stamps.read_bytes(path))
        entry = self.out(path)
        return entry.md5 if entry else None

    def read(self, path: Path) -> bytes | None:
        """Return the bytes of an output; None if they are not available. StateError if DVC's cache was altered."""
        if self.commit is None and path.is_file():
            return self._unaltered(path, stamps.read_bytes(path))
        md5 = self._locked_md5(path)
        return None if md5 is None else locks.read_object(md5)

    def _unaltered(self, path: Path, content: bytes) -> bytes | None:
        """Return the bytes of a file; if they are not what the lock holds, note that and return None."""
        if self._locked_md5(path) in (None, locks.md5_of(content)):
            return content
        self.altered.add(f"{path} of {self.name} is not what {locks.LOCK} holds; run `headswap audit`")
        return None

    def _locked_md5(self, path: Path) -> str | None:
        """Return the md5 of an output in the lock, or in DVC's list of its folder's files; None if it is in neither."""
        entry = self.out(path)
        if entry is None or entry.path == path.as_posix():
            return entry.md5 if entry else None
        listed = locks.read_object(entry.md5)
        return None if listed is None else self._inside(entry, listed, path)

    def _inside(self, folder: Entry, content: bytes, path: Path) -> str | None:
        """Return the md5 of a file in a folder, of which DVC keeps a list."""
        try:
            listed = {file["relpath"]: str(file["md5"]) for file in json.loads(content)}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StateError(f"{folder.path} of {self.name}: not DVC's list of a folder's files") from error
        return listed.get(path.relative_to(folder.path).as_posix())

    def manifest(self) -> Manifest | None:
        """Return the manifest; None if it is not available."""
        if self.commit is None and manifest.MANIFEST.is_file():
            return manifest.read()
        content = self.read(manifest.MANIFEST)
        if content is None:
            return None
        try:
            return Manifest(*manifest.columns_of(content, COLUMNS))
        except StateError as error:
            raise StateError(f"{manifest.MANIFEST} of {self.name}: {error}") from error

    def embedded(self, backbone: str) -> Mapping[str, Any] | None:
        """Return the facts in the stamp of a backbone's matrix, with skipped images; None if not available."""
        facts = self._facts(matrix.stamp_path(backbone))
        return None if facts is None else {**facts, **(self._facts(skipped.path_of(backbone)) or {})}

    def trained(self, run: str) -> Mapping[str, Any] | None:
        """Return the facts in a run's stamp; None if they are not available."""
        return self._facts(runs.stamp_path(*run.split("/")))

    def _facts(self, path: Path) -> Mapping[str, Any] | None:
        content = self.read(path)
        if content is None:
            return None
        facts = _json(content, where := f"{path} of {self.name}").get("facts", {})
        if not isinstance(facts, dict) or not all(isinstance(facts.get(name, {}), dict) for name in FACTS):
            raise StateError(f"{where}: not a stamp")
        return facts

    def validation(self, run: str) -> Mapping[str, float]:
        """Return a run's validation metrics, by name; empty if git does not have them."""
        return _numbers(self._git_json(runs.metrics_path(*run.split("/"))).get("validation"))

    def test(self, run: str, metric: str) -> float | None:
        """Return a run's test score; None if neither git nor DVC's cache has it."""
        if metric == self.metric and run in (scores := _numbers(self._git_json(schema.SCORES).get("test"))):
            return scores[run]
        try:
            (found,) = [one for one in self.verdict["results"] if f"{one['backbone']}/{one['name']}" == run]
            return float(found["test"][metric]["value"])
        except (KeyError, ValueError, TypeError):  # no verdict, one without this run, or with another layout
            return None

    @cached_property
    def verdict(self) -> Mapping[str, Any]:
        """The content of verdict.json; empty if it is not available."""
        content = self.read(schema.VERDICT)
        return {} if content is None else _json(content, f"{schema.VERDICT} of {self.name}")

    def _git_json(self, path: Path) -> Mapping[str, Any]:
        """Return the content of a JSON file that git keeps; empty if it is missing, or not what the lock holds."""
        if self.commit is not None:
            content = git.file_at(self.commit, path.as_posix())
        else:
            content = stamps.read_bytes(path) if path.is_file() else None
        held = None if content is None else self._unaltered(path, content)
        return {} if held is None else _json(held, f"{path} of {self.name}")


def at(revision: str) -> Revision:
    """Read a commit by any name that git has for it; InputError if there is none."""
    commit = git.commit_of(revision)
    if commit is None:
        raise InputError(f"REVISION: got {revision!r}, expected a commit, branch or tag that git knows here")
    name = commit[:10] if commit.startswith(revision) else f"{revision} ({commit[:10]})"
    return Revision(name, commit, locks.at(commit))


def working_tree() -> Revision:
    """Read the working tree; StateError if nothing was run in it."""
    return Revision(_WORKING_TREE, None, locks.read())


def have_same(before: Revision, after: Revision, path: Path) -> bool:
    """Return whether two revisions are known to have the same bytes of an output."""
    md5 = before.md5(path)
    return md5 is not None and md5 == after.md5(path)


def flat_params(stage: Locked) -> dict[str, Any]:
    """Return dotted name -> value of all parameters of a stage; `file:` comes before those of other files."""
    found: dict[str, Any] = {}
    for file, values in stage.params.items():
        for name, value in values.items():
            found |= dict(_flat(name if file == PARAMS else f"{file}:{name}", value))
    return found


def not_run_yet(revision: Revision) -> Iterator[str]:
    """Yield the names of parameters that were edited in params.yaml since the last run."""
    content = locks.load_yaml(Path(PARAMS))
    stated = dict(_flat("", content))
    for stage in revision.lock.values():
        for name in stage.params.get(PARAMS, {}):
            before = {key: value for key, value in flat_params(stage).items() if f"{key}.".startswith(f"{name}.")}
            after = {key: value for key, value in stated.items() if f"{key}.".startswith(f"{name}.")}
            yield from (key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key))


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  # whatever YAML can hold
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, one in value.items():
        yield from _flat(f"{name}.{key}" if name else str(key), one)


def _json(content: bytes, where: str) -> dict[str, Any]:
    try:
        return dict(json.loads(content))
    except (ValueError, TypeError, RecursionError) as error:
        raise StateError(f"{where}: got no JSON object ({error})") from error


def _numbers(found: object) -> dict[str, float]:
    pairs = found.items() if isinstance(found, Mapping) else ()
    return {name: float(value) for name, value in pairs if isinstance(value, (int, float))}
