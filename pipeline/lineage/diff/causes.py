"""Why a result changed: what differs between two dvc.locks, in the stage that made it and in all stages before."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.locks import Lock, Locked
from pipeline.lineage.diff.image_changes import examples
from pipeline.lineage.diff.revisions import Revision, flat_params

CODE = "pipeline"
"""The folder of all code."""


@dataclass
class Causes:
    """Root causes, gathered from a stage and, through every dependency that changed, from the stages before it."""

    before: Lock
    after: Lock
    settings: dict[str, str] = field(default_factory=dict)
    code: set[str] = field(default_factory=set)
    data: set[str] = field(default_factory=set)
    others: list[str] = field(default_factory=list)
    _explained: dict[str, bool] = field(default_factory=dict)

    def walk(self, stage: str) -> bool:
        """Gather the causes of a change in a stage's outputs; return whether there are any."""
        if stage not in self._explained:
            self._explained[stage] = self._look_at(stage)
        return self._explained[stage]

    def _look_at(self, stage: str) -> bool:
        old, new = self.before.get(stage), self.after.get(stage)
        if old is None or new is None:
            self.others.append(f"stage {stage} is {'new' if old is None else 'gone'}")
            return True
        settings = changed(flat_params(old), flat_params(new))
        self.settings |= settings
        if old.cmd != new.cmd:
            self.others.append(f"command: {old.cmd} -> {new.cmd}")
        followed = [self._follow(path) for path in sorted(changed_deps(old, new))]
        return bool(settings) or old.cmd != new.cmd or any(followed)

    def _follow(self, path: str) -> bool:
        """Gather what explains the change of a dependency; return whether anything does."""
        makers = sorted({name for lock in (self.before, self.after) for name, one in lock.items() if path in one.outs})
        if is_code(path):
            self.code.add(path)
        elif not makers:
            self.data.add(path)
        else:
            new = [maker for maker in makers if maker not in self._explained]
            explained = [self.walk(maker) for maker in makers]
            if not any(explained):
                if new:
                    self.others.append(f"{path}: other bytes, although no recorded input changed")
                return False
        return True

    def lines(self, images: str | None) -> Iterator[str]:
        """Yield a line for each cause; `images` says how the images changed, if that is known."""
        for path in sorted(self.data):
            yield f"{path}: {images or 'other content'}"
        yield from (f"{name}: {change}" for name, change in sorted(self.settings.items()))
        if self.code:
            yield code(self.code)
        yield from self.others


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """Return name -> "old -> new" of everything that differs."""
    names = sorted(before.keys() | after.keys())
    differing = [name for name in names if (name in before, before.get(name)) != (name in after, after.get(name))]
    return {name: f"{_value(before, name)} -> {_value(after, name)}" for name in differing}


def changed_deps(old: Locked, new: Locked) -> set[str]:
    """Return the dependencies that have other bytes in two runs of a stage, or that only one of them has."""
    return {path for path in old.deps.keys() | new.deps.keys() if _md5(old, path) != _md5(new, path)}


def _md5(stage: Locked, path: str) -> str | None:
    return stage.deps[path].md5 if path in stage.deps else None


def is_code(path: str) -> bool:
    """Return whether a dependency is code."""
    return path.startswith(f"{CODE}/")


def changed_code(before: Lock, after: Lock) -> set[str]:
    """Return the code that differs between two locks, in the stages that both have."""
    shared = [(before[name], after[name]) for name in before if name in after]
    return {path for old, new in shared for path in changed_deps(old, new) if is_code(path)}


def code(paths: set[str]) -> str:
    """Return a line for changed code."""
    number = f"{len(paths)} files or folders, e.g. " if len(paths) > 1 else ""
    return f"code: {number}{examples(sorted(paths))}"


def made_with(before: Revision, after: Revision, run: str) -> list[str] | None:
    """Return how libraries and machine differ between two trainings of a run; None if that is not known."""
    facts = before.trained(run), after.trained(run)
    if facts[0] is None or facts[1] is None:
        return None
    old, new = (_environment(one) for one in facts if one is not None)
    return [f"{name}: {change}" for name, change in changed(old, new).items()]


def _environment(facts: Mapping[str, Any]) -> dict[str, Any]:
    made_with, device = facts.get("made_with", {}), facts.get("device")
    return {
        **made_with.get("libraries", {}),
        **made_with.get("machine", {}),
        "python": made_with.get("python"),
        "device": device,
    }


def _value(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name], ensure_ascii=False, default=str) if name in values else "not set"
