"""How a tree of files is laid out: class folders, folders train, val and test, or a table with images beside it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipeline.core.errors import InputError, first_five
from pipeline.data.images.decoding import SUFFIXES
from pipeline.data.sources.catalogue import SPLIT_FOLDERS

COLUMNS: Mapping[str, Sequence[str]] = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "url"),
    "label": ("label", "class", "category", "target", "class_name", "label_name", "diagnosis", "dx", "y"),
    "group": ("group", "patient", "patient_id", "subject", "subject_id", "session", "module", "lesion_id"),
    "split": ("split", "set", "subset", "partition"),
}
"""Our column -> the names that tables give it, in lower case, the likeliest first."""


@dataclass(frozen=True)
class Layout:
    """The settings for `data` in params.yaml, and why."""

    source: str
    path: Path
    why: str
    columns: Mapping[str, str] = field(default_factory=dict)
    """Our column -> the table's; empty if all have our names."""
    remote: str | None = None
    splits: bool = False
    """Whether the data says which split an image belongs to."""

    def settings(self) -> dict[str, object]:
        """Return the keys that `data` in params.yaml takes from it."""
        return {"source": self.source, "path": self.path, "columns": self.columns, "remote": self.remote}


def tree(names: Sequence[str], where: object) -> tuple[str, str]:
    """Return the name of the source that reads a tree of files without a table, and the reason.

    Args:
        names: of the files, relative to the root; none is hidden.
        where: the root, for messages.

    Raises:
        InputError: if there are no images, some lie beside the class folders, or splits and classes share a level.

    """
    inside = [path for path in map(PurePosixPath, names) if path.suffix.lower() in SUFFIXES]
    if not inside:
        raise InputError(
            f"{where}: got 0 images in {len(names):,} files, expected files ending in {', '.join(sorted(SUFFIXES))}"
        )
    loose = [str(name) for name in inside if len(name.parts) == 1]
    if len(loose) == len(inside):
        raise InputError(
            f"{where}: {len(loose):,} images lie directly in it, expected one folder per class, folders train, val and "
            "test of these, or a CSV with columns path and label"
        )
    if loose:
        problems = [f"{where}/{name}: lies beside the class folders, expected in one" for name in loose]
        raise InputError(*first_five(problems, "loose images"))
    tops = Counter(name.parts[0] for name in inside)
    named = {top for top in tops if top.lower() in SPLIT_FOLDERS}
    if named == set(tops):
        return "split_folders", f"{', '.join(sorted(tops))}, each with a folder per class"
    if named:
        others = sorted(set(tops) - named)
        raise InputError(
            f"{where}: {', '.join(sorted(named))} look like splits, {', '.join(others[:5])} do not; expected only "
            "folders of splits, or only folders of classes"
        )
    return "image_folder", "a folder per class"


def columns(header: Sequence[str], table: Path) -> dict[str, str]:
    """Return our column -> the table's, for path and label, and for group and split if it has them.

    Raises:
        InputError: if there is no column for paths, or none for labels.

    """
    lower = {name.strip().lower(): name for name in reversed(header)}
    found = {
        ours: next(lower[theirs] for theirs in names if theirs in lower)
        for ours, names in COLUMNS.items()
        if any(theirs in lower for theirs in names)
    }
    if missing := [ours for ours in ("path", "label") if ours not in found]:
        raise InputError(*(
            f"{table}: columns: got {', '.join(header) or 'none'}, expected one for the {ours}, called one of: "
            f"{', '.join(COLUMNS[ours])}; or say which in params.yaml: data.columns"
            for ours in missing
        ))  # fmt: skip
    return found
