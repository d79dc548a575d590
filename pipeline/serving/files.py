"""The images that files and folders on the command line stand for."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.core.errors import InputError
from pipeline.data.images.decoding import SUFFIXES


def images_of(named: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the images among files and in folders, each once, in their order; and a line for all that was skipped.

    A named file counts whatever its suffix. In a folder and its subfolders the suffix decides; hidden files are left
    out, and links to folders are not followed.

    Raises:
        InputError: with a line for every path that is neither file nor folder.

    """
    if problems := [problem for one in named if (problem := _problem(one))]:
        raise InputError(*problems)
    images: dict[str, Path] = {}
    passed_over: list[str] = []
    for one in map(Path, named):
        for path in _inside(one, passed_over) if one.is_dir() else [one]:
            if _is_printable_utf8(str(path)):
                images.setdefault(os.path.abspath(path), path)  # noqa: PTH100  # links are no reason to drop an image
            else:
                passed_over.append(f"{str(path)!r}: the name is not printable UTF-8; rename the file")
    return list(images.values()), passed_over


def _problem(one: str) -> str | None:
    path = Path(one)
    if one and (path.is_file() or path.is_dir()):
        return None
    return f"{one}: neither a file nor a folder" if path.exists() and one else f"{one}: no such file or folder"


def _inside(folder: Path, passed_over: list[str]) -> Iterator[Path]:
    """Yield the images in a folder."""

    def unreadable(error: OSError) -> None:
        passed_over.append(f"{error.filename}: cannot be read ({error.strerror})")

    found = False
    for root, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [Path(root, name) for name in folders if Path(root, name).is_symlink()]
        passed_over += [f"{link}: a link to a folder is not followed" for link in links]
        for path in (Path(root, name) for name in sorted(files) if not name.startswith(".")):
            if path.suffix.lower() not in SUFFIXES:
                continue
            found = True
            if path.is_file():
                yield path
            else:
                passed_over.append(f"{path}: not a regular file")
    if not found:
        passed_over.append(f"{folder}: no image in it")


def _is_printable_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return name.isprintable()
