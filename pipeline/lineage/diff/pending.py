"""What changed in the working tree since its stages ran, so that its results are out of date."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import locks
from pipeline.core.errors import StateError, one_line
from pipeline.core.locks import Lock


@dataclass(frozen=True)
class Pending:
    """What DVC would run again."""

    files: tuple[str, ...] = ()
    """Images, tables and code that changed, sorted; params.yaml is not among them."""
    edited: frozenset[str] = frozenset()
    """Stages that read a changed file or setting."""
    stages: frozenset[str] = frozenset()
    """These, and all stages that depend on them."""
    unknown: str = ""
    """Why that is not known; empty if it is."""


def of(lock: Lock) -> Pending:
    """Ask DVC, which reads only files whose time or size changed; nothing is pending without a DVC repository."""
    from dvc.exceptions import DvcException  # noqa: PLC0415  # half a second
    from dvc.lock import LockError  # noqa: PLC0415

    try:
        with locks.repository(Path.cwd()) as opened:
            status = opened.status() if opened else {}
    except LockError:
        return Pending(unknown="DVC is at work")
    except (DvcException, StateError, OSError) as error:
        return Pending(unknown=one_line(error))
    made = {path for stage in lock.values() for path in stage.outs}
    files, stages = set[str](), set[str]()
    for name, findings in status.items():
        changed = [one["changed deps"] for one in findings if isinstance(one, Mapping) and "changed deps" in one]
        if name in lock and (changed or "changed command" in findings):
            stages.add(name)
            # for params.yaml, `how` lists the changed parameters
            files |= {path for some in changed for path, how in some.items() if isinstance(how, str)} - made
    return Pending(tuple(sorted(files)), frozenset(stages), frozenset(_with_readers(stages, lock)))


def _with_readers(stages: set[str], lock: Lock) -> set[str]:
    """Add all stages that depend on these."""
    written = [path for name in stages for path in lock[name].outs]
    readers = {name for name, stage in lock.items() if any(_overlap(dep, out) for dep in stage.deps for out in written)}
    return stages if readers <= stages else _with_readers(stages | readers, lock)


def _overlap(one: str, other: str) -> bool:
    """Return whether two paths are the same, or one lies in the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
