"""Files that no record in the chain mentions, in the folders where only the pipeline writes."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.core import artifacts
from pipeline.core.mismatches import Mismatch
from pipeline.core.params import Params
from pipeline.repair.leftovers import OURS

CODE = Path("pipeline")
FOLDERS = {Path(f"{one.path.partition('{')[0]}x").parent for one in artifacts.ALL} - {artifacts.MANIFEST.at().parent}
"""Without the manifest's folder, where the user's own files lie, too."""


def find(params: Params, known: Iterable[str]) -> tuple[list[Mismatch], list[str]]:
    """Return the files that should not be there, and those of runs and backbones that params no longer lists."""
    expected, findings, unlisted = set(known), [], []
    for path in _files():
        if path in expected or _is_expected(path):
            continue
        if _is_of_unlisted_run(params, path):
            unlisted.append(path)
        else:
            findings.append(Mismatch(path, "no file, as nothing in the chain made it", "one"))
    return findings, unlisted


def shadowing() -> Iterator[Mismatch]:
    """Yield folders of code that Python would import instead of the module of the same name."""
    for folder in sorted(CODE.rglob("*/")):
        if folder.with_suffix(".py").is_file():
            yield Mismatch(folder.as_posix(), f"no folder, as it hides {folder.with_suffix('.py').as_posix()}", "one")


def _files() -> Iterator[str]:
    """Yield files, and links to folders, which the pipeline never makes."""
    inside = {path for folder in FOLDERS for path in folder.rglob("*")}
    yield from (path.as_posix() for path in sorted(inside) if path.is_symlink() or not path.is_dir())


def _is_expected(path: str) -> bool:
    """Return whether a killed writer left the file, which `headswap doctor` mends, or DVC writes it for git."""
    name = Path(path).name
    return name == ".gitignore" or OURS.fullmatch(name) is not None


def _is_of_unlisted_run(params: Params, path: str) -> bool:
    names = artifacts.named(path)
    return bool(names) and not any(names in one.names_in(params) for one in (artifacts.EMBEDDINGS, artifacts.MODEL))
