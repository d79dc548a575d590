"""A project that has run, under git, with its objects in DVC's cache; and what `forget` prints about it."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.core import locks, params
from pipeline.data import manifest
from pipeline.lineage.audit import forgotten_images
from tests.conftest import Project
from tests.stages.spine import run, undrawn

IMAGE, PATH = "blue/01.png", Path("data/raw/blue/01.png")


OBJECTS = Path("objects")


CACHE = Path(".headswap/embeddings")


STAGES = {
    "prepare": (["data/manifest.parquet"], []),
    "embed@tiny": (["data/embeddings/tiny.h5"], ["data/manifest.parquet"]),
    "train@tiny-logreg": (["models/tiny/logreg", "predictions/tiny/logreg.parquet"], ["data/manifest.parquet"]),
}


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True, capture_output=True)


def stored(content: bytes, suffix: str = "") -> str:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + suffix
    (OBJECTS / md5[:2]).mkdir(parents=True, exist_ok=True)
    (OBJECTS / md5[:2] / md5[2:]).write_bytes(content)
    return md5


def commit() -> None:
    """Do what `dvc repro` and a commit would."""
    lock(stages())
    git("add", "dvc.lock")
    git("commit", "--allow-empty", "-m", "run")


def lock(content: dict[str, object]) -> None:
    Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": content}))


def stages() -> dict[str, object]:
    """Put what the stages made into DVC's cache; return what dvc.lock says of it."""

    def entry(path: str) -> dict[str, object]:
        if not Path(path).is_dir():
            return {"path": path, "md5": stored(Path(path).read_bytes()), "size": 1}
        files = [{"md5": stored(file.read_bytes()), "relpath": file.name} for file in sorted(Path(path).iterdir())]
        return {"path": path, "md5": stored(json.dumps(files).encode(), ".dir"), "size": 1, "nfiles": len(files)}

    return {
        name: {"cmd": name, "outs": [*map(entry, outs)], "deps": [*map(entry, deps)]}
        for name, (outs, deps) in STAGES.items()
    }


def rerun(project: Project) -> None:
    """Delete the raw file and run everything that depends on it."""
    PATH.unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        undrawn(patch)
        run(project)
    commit()


def collect_garbage() -> None:
    """Do what `dvc gc --workspace` would."""
    named = {md5 for stage in locks.read().values() for out in stage.outs.values() for md5 in objects_of(out.md5)}
    for path in OBJECTS.glob("*/*"):
        if path.parent.name + path.name not in named:
            path.unlink()


def objects_of(md5: str) -> list[str]:
    content = (OBJECTS / md5[:2] / md5[2:]).read_bytes()
    return [md5, *([file["md5"] for file in json.loads(content)] if md5.endswith(".dir") else [])]


def forget(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> list[str]:
    """Run it; return the lines it printed, white space made plain."""
    capsys.readouterr()
    assert main(["forget", *arguments]) == status
    said = capsys.readouterr()
    return [" ".join(line.split()) for line in (said.out + said.err).splitlines()]


def sha256() -> str:
    table = manifest.read()
    return table.sha256[table.row_of()[IMAGE]]


def snapshot() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and ".git" not in path.parts}


def found() -> list[str]:
    return [finding.path for finding in forgotten_images.find(params.load())]
