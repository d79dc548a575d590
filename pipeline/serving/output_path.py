"""Where a user may have a table or a model written: not among the pipeline's files, nor among the images."""

from pathlib import Path

from pipeline.core.artifacts import FOLDERS
from pipeline.core.errors import InputError
from pipeline.core.params import PARAMS
from pipeline.core.sections import Data

OURS = (".dvc", ".git", ".headswap", "pipeline", "dvc.lock", "dvc.yaml", str(PARAMS), *FOLDERS)


def require(path: Path, data: Data, where: str) -> None:
    """Raise InputError, which begins with `where`, unless a file can be written to a path without harm."""
    whole = path.resolve()
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{where}: {path}: " + ("is a folder" if path.is_dir() else f"no folder {path.parent}"))
    if whole.is_relative_to(data.path.resolve()):
        raise InputError(f"{where}: {path}: lies among the images, expected a place of its own")
    if whole.is_relative_to(Path.cwd()) and whole.relative_to(Path.cwd()).parts[0] in OURS:
        raise InputError(f"{where}: {path}: lies where the pipeline keeps its own files, expected another place")
