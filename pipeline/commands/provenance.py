"""provenance: export dvc.lock in a format that other tools read."""

from argparse import ArgumentParser
from pathlib import Path

from pipeline.core import git, locks
from pipeline.core.atomic import replacing
from pipeline.core.errors import InputError, unknown
from pipeline.core.locks import Lock
from pipeline.core.params import PARAMS, Params
from pipeline.core.words import counted
from pipeline.lineage.audit.dvc_lock import entries
from pipeline.lineage.export import openlineage, prov

HELP = "write what dvc.lock says as W3C PROV-JSON or OpenLineage events, for other tools"


def arguments(parser: ArgumentParser) -> None:
    """Add the format and the file to write."""
    parser.add_argument("format", metavar="FORMAT", help="prov or openlineage")
    where = "the file to write; events bear dvc.lock's time: of its commit, or of its last change if not committed"
    parser.add_argument("file", metavar="FILE", help=where)


def main(_params: Params, format: str, file: str) -> str:  # noqa: A002  # the argument's name
    """Write the export, replacing the file; return the summary line.

    Raises:
        InputError: if the format is unknown, its package is not installed, or the file must not be overwritten.
        StateError: if there is no dvc.lock, or it is not what DVC writes.

    """
    path = Path(file)
    if format not in FORMATS:
        raise InputError(unknown("format", format, FORMATS))
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected the name of a file")
    if not path.parent.is_dir():
        raise InputError(f"{path}: {path.parent} is no folder; make it, or name another file")
    lock = locks.read()
    if owner := _owner(path, lock):
        raise InputError(f"{path}: {owner}, and would be overwritten; name another file")
    with replacing(path) as temporary:
        FORMATS[format](lock, temporary)
    files = len({(entry.path, entry.md5) for entry, _ in entries(lock)})
    return (
        f"{counted(len(lock), 'stage')} and {counted(files, 'file')}, as they stand in {locks.LOCK}, written to {path}"
    )


def _owner(path: Path, lock: Lock) -> str | None:
    """Say why a file must not be overwritten; None if it may. A link counts as itself, for it is replaced."""
    whole = path.parent.resolve() / path.name
    if whole in [Path(name).resolve() for name in (locks.LOCK, "dvc.yaml", PARAMS)]:
        return "belongs to this pipeline"
    listed = {Path(name).resolve() for stage in lock.values() for name in (*stage.deps, *stage.outs)}
    if not listed.isdisjoint([whole, *whole.parents]):
        return f"is listed in {locks.LOCK}, or lies in a folder that is"
    tracked = git.run("--literal-pathspecs", "ls-files", "--error-unmatch", "--", str(path)) is not None
    return "is tracked by git" if tracked else None


def _prov(lock: Lock, path: Path) -> None:
    path.write_text(prov.render(lock), encoding="utf-8")


FORMATS = {"prov": _prov, "openlineage": openlineage.write}
