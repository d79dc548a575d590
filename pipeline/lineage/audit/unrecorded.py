"""Files where only the pipeline writes, of which no record in the chain speaks."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.core import artifacts
from pipeline.core.mismatches import Mismatch
from pipeline.core.params import Params
from pipeline.repair.leftovers import OURS

CODE = Path("pipeline")
FOLDERS = {Path(f"{one.path.partition('{')[0]}x").parent for one in artifacts.ALL} - {artifacts.MANIFEST.at().parent}
"""Beside the manifest the user's own files lie."""


def find(params: Params, known: Iterable[str]) -> tuple[list[Mismatch], list[str]]:
    """Return the files that should not be there, and those of runs and backbones that params no longer lists."""
    expected, findings, left = set(known), [], []
    for path in _written():
        if path in expected or _is_temporary(path):
            continue
        if _is_of_another_run(params, path):
            left.append(path)
        else:
            findings.append(Mismatch(path, "no file, for nothing in the chain made it", "one"))
    return findings, left


def shadowing() -> Iterator[Mismatch]:
    """Yield folders of code that Python would import in place of the module of that name."""
    for folder in sorted(CODE.rglob("*/")):
        if folder.with_suffix(".py").is_file():
            yield Mismatch(folder.as_posix(), f"no folder, for it hides {folder.with_suffix('.py').as_posix()}", "one")


def _written() -> Iterator[str]:
    """Yield the files, and the links to folders: nothing in the chain is one."""
    inside = {path for folder in FOLDERS for path in folder.rglob("*")}
    yield from (path.as_posix() for path in sorted(inside) if path.is_symlink() or not path.is_dir())


def _is_temporary(path: str) -> bool:
    """Return whether a killed writer left it, which is the doctor's business, or DVC lists there what git ignores."""
    name = Path(path).name
    return name == ".gitignore" or OURS.fullmatch(name) is not None


def _is_of_another_run(params: Params, path: str) -> bool:
    """Return whether a file lies where a run or backbone that is not listed would have it."""
    names = artifacts.named(path)
    return bool(names) and not any(names in one.names_in(params) for one in (artifacts.EMBEDDINGS, artifacts.MODEL))
