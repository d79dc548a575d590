"""lineage: write what dvc.lock says in a format that other tools read."""

from pathlib import Path

from pipeline import locks
from pipeline.atomic import replacing
from pipeline.errors import InputError, unknown
from pipeline.lineage.exporting import openlineage, prov
from pipeline.locks import Lock
from pipeline.params import Params


def main(_params: Params, target: list[str]) -> str:
    """Write the export in place of whatever the file held; return the summary line.

    Raises:
        InputError: if the format is unknown, its package is not installed, or a folder stands where the file should.
        StateError: if there is no dvc.lock, or it is not what DVC writes.

    """
    name, path = target[0], Path(target[1])
    if name not in FORMATS:
        raise InputError(unknown("format", name, FORMATS))
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected the name of a file")
    lock = locks.read()
    with replacing(path) as temporary:
        FORMATS[name](lock, temporary)
    files = len(
        {(one.path, one.md5) for stage in lock.values() for one in (*stage.deps.values(), *stage.outs.values())}
    )
    return f"{len(lock)} stages and {files} files, as they stand in {locks.LOCK}, written to {path}"


def _prov(lock: Lock, path: Path) -> None:
    path.write_text(prov.render(lock), encoding="utf-8")


FORMATS = {"prov": _prov, "openlineage": openlineage.write}
