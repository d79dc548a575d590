"""Files where only the pipeline writes, that nothing in the chain speaks of."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.lineage.findings import Finding
from pipeline.params import Params

FOLDERS = ("curves", "data/embeddings", "metrics", "models", "plots", "predictions", "reports", "survey")


def find(params: Params, known: Iterable[str]) -> tuple[list[Finding], list[str]]:
    """Return the files that should not be there, and those of runs and backbones that params no longer lists."""
    expected, findings, left = set(known), [], []
    for path in _written():
        if path in expected or _is_temporary(path):
            continue
        if _is_of_another_run(params, path):
            left.append(path)
        else:
            findings.append(Finding(path, "no file, for nothing in the chain made it", "one"))
    return findings, left


def _written() -> Iterator[str]:
    for folder in FOLDERS:
        yield from (path.as_posix() for path in sorted(Path(folder).rglob("*")) if not path.is_dir())


def _is_temporary(path: str) -> bool:
    """Return whether a killed writer left it, which is the doctor's business, or DVC and git keep notes in it."""
    name = Path(path).name
    return name == ".gitignore" or (name.startswith(".") and name.endswith(".tmp"))


def _is_of_another_run(params: Params, path: str) -> bool:
    """Return whether a file lies where a run or backbone that is not listed would have it."""
    top, *rest = Path(path).parts
    if (top, *rest[:1]) == ("data", "embeddings"):
        return Path(path).name.split(".")[0] not in params.run.backbones
    if top in ("curves", "survey"):
        return Path(path).stem not in params.run.backbones
    listed = {(backbone, name) for backbone, name in params.runs()}
    return (
        top in ("metrics", "models", "plots", "predictions")
        and len(rest) > 1
        and ((rest[0], Path(rest[1]).stem if len(rest) == 2 else rest[1]) not in listed)
    )
