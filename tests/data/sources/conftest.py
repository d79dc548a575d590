"""Tiny data sets in archives and under remote roots."""

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pipeline.core.sections import Columns, Data
from pipeline.data.manifest import Record
from pipeline.data.sources import listed, place_of

Files = Mapping[str, bytes]
Packer = Callable[[Path, Files], Path]

CATS_AND_DOGS: Files = {f"{label}/{n}.png": f"{label} {n}".encode() for label in ("cat", "dog") for n in range(12)}


def zipped(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: Files) -> Path:
    with tarfile.open(path, f"w:{path.suffix[1:].replace('tar', '').replace('tgz', 'gz')}") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def pack(path: Path, files: Files) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return zipped(path, files) if path.suffix == ".zip" else tarred(path, files)


def records_of(source: str, path: Path, columns: Columns | None = None, remote: str | None = None) -> list[Record]:
    """Read the named source in a folder, an archive or under a remote root."""
    return listed(place_of(Data(source=source, path=path, columns=columns or Columns(), remote=remote)))


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
