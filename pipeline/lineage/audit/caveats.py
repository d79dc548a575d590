"""What the audit cannot verify, said instead of passed over."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.core import artifacts, environment, git, stamps
from pipeline.core.errors import StateError
from pipeline.core.locks import LOCK
from pipeline.core.params import Params
from pipeline.core.sections import STORE
from pipeline.embeddings import matrix
from pipeline.evaluation import runs

DIGITS = 64
"""In a whole sha256."""
KEPT_IN_GIT = (*environment.CODE, LOCK.as_posix(), *artifacts.IN_GIT)


def notes(params: Params) -> Iterator[str]:
    """Yield one line for everything that somebody could alter unnoticed."""
    yield from _uncommitted_files()
    if params.data.remote:
        yield f"{params.data.remote}: not read; only its images in {STORE} were checked"
    yield from _weights(params)
    for run, reason in runs.failures(params.runs(), missing_ok=True).items():
        yield f"{'/'.join(run)} failed, and made nothing: {reason}"
    yield from _uncommitted_runs(params)
    yield from _libraries(params)


def _uncommitted_files() -> Iterator[str]:
    if git.commit_of("HEAD") is None:
        yield "no git commit: code, settings and dvc.lock can be altered together, unnoticed"
        return
    changed = git.run("status", "--porcelain", "-z", "--", *KEPT_IN_GIT) or b""
    files = [line[3:] for line in changed.decode(errors="replace").split("\0") if line]
    if files:
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        yield f"not committed: {', '.join(sorted(files)[:3])}{more}; no commit vouches for them"


def _weights(params: Params) -> Iterator[str]:
    for backbone in params.run.backbones:
        try:
            facts = stamps.read(matrix.stamp_path(backbone)).facts
        except StateError:
            continue  # its own checksum fails
        if (pinned := facts.get("weights_pinned", DIGITS)) < DIGITS:  # embeddings of an older version do not say
            known = f"only the first {pinned} digits of its sha256 pin" if pinned else "no sha256 pins"
            used = facts.get("recipe", {}).get("weights_sha256")
            yield f"{backbone}: {known} its weights; state it in params.yaml (this run used sha256 {used})"


def _uncommitted_runs(params: Params) -> Iterator[str]:
    """Name runs made with uncommitted code, unless it is committed now: the audit compares theirs with today's."""
    if git.commit_of("HEAD") is not None and not git.text("status", "--porcelain", "--", *environment.CODE):
        return
    uncommitted = [run for run, made_with in _made_with(params) if made_with.get("uncommitted_changes", True)]
    if uncommitted:
        yield f"made with code or settings that no commit holds: {', '.join(uncommitted)}"


def _libraries(params: Params) -> Iterator[str]:
    here = environment.versions()
    others = {
        f"{one} {version} ({here.get(one, 'none')} here)"
        for _, made_with in _made_with(params)
        for one, version in made_with.get("libraries", {}).items()
        if version != here.get(one)
    }
    if others:
        yield f"made with other libraries than are installed: {', '.join(sorted(others))}"


def _made_with(params: Params) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for backbone, name in params.runs():
        try:
            yield f"{backbone}/{name}", stamps.read(runs.stamp_path(backbone, name)).facts["made_with"]
        except (StateError, KeyError):
            continue  # its own checksum fails
