"""The project as DVC sees it: the stages in dvc.yaml, where objects lie, and which files DVC ignores."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core import locks
from pipeline.core.errors import one_line


@dataclass(frozen=True)
class Stage:
    """A stage as dvc.yaml and params.yaml describe it."""

    cmd: str
    deps: frozenset[str]
    params: frozenset[str]
    """Dotted names in params.yaml."""
    outs: Mapping[str, bool]
    """path -> whether DVC keeps it in its cache."""


@dataclass(frozen=True)
class Repository:
    """A DVC repository."""

    stages: Mapping[str, Stage]
    problem: str | None
    """Why there are no stages: DVC cannot read dvc.yaml or dvc.lock."""
    objects: Path
    ignored: Any
    """DVC's filter of ignored files."""
    files: Any
    """DVC's file system."""

    def files_in(self, folder: str) -> Sequence[str]:
        """Return the POSIX paths, each beginning with the folder's, of all files in it that DVC does not ignore."""
        whole = os.path.abspath(folder)  # noqa: PTH100  # it may lie outside the project, and links are kept
        found = self.ignored.find(self.files, whole)
        return sorted(f"{folder}/{Path(os.path.relpath(path, whole)).as_posix()}" for path in found)


@contextmanager
def opened() -> Iterator[Repository | None]:
    """Open the DVC repository in the current folder; yield None outside one.

    Raises:
        StateError: if its settings are not what DVC can read.

    """
    with locks.repository(Path.cwd()) as repository:
        if repository is None:
            yield None
            return
        stages, problem = _stages(repository)
        yield Repository(stages, problem, Path(repository.cache.local.path), repository.dvcignore, repository.fs)


def _stages(repository: Any) -> tuple[dict[str, Stage], str | None]:  # noqa: ANN401  # DVC is not typed
    from dvc.exceptions import DvcException  # noqa: PLC0415

    try:
        return {one.addressing: _stage(one) for one in repository.index.stages if hasattr(one, "name")}, None
    except (
        DvcException,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:  # DVC does not check all that it assumes
        return {}, one_line(error)


def _stage(stage: Any) -> Stage:  # noqa: ANN401  # DVC is not typed
    params = {name for dep in stage.params for name in dep.params}
    deps = {dep.def_path for dep in stage.deps if dep not in stage.params}
    return Stage(stage.cmd, frozenset(deps), frozenset(params), {out.def_path: out.use_cache for out in stage.outs})
