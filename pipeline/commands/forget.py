"""forget: take images out of cache and embeddings for good, and list all that still carries them.

If the command is killed, nothing else is lost, and running it again completes it. The images are added to the list of
excluded images first: from then on `prepare` leaves them out and the audit looks for them.
"""

import re
import shutil
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from pipeline.core import artifacts, locks, processes
from pipeline.core.errors import InputError, StateError
from pipeline.core.params import Params
from pipeline.core.processes import EMBED_LOCK
from pipeline.core.sections import STORE
from pipeline.core.tables import aligned
from pipeline.core.words import counted
from pipeline.data import exclusions, manifest
from pipeline.data.exclusions import EXCLUDED, FORGOTTEN
from pipeline.data.manifest import MANIFEST, Manifest
from pipeline.data.sources import memo, store
from pipeline.embeddings import matrix, upkeep, users
from pipeline.embeddings.shards import keys_of, sha256_of
from pipeline.embeddings.upkeep import Change
from pipeline.evaluation import runs
from pipeline.lineage.audit import carriers, objects
from pipeline.lineage.audit.carriers import caches, checkpoints

Names = dict[str, set[str]]
"""id, path or sha256 of an image -> the sha256s of the images that it may mean."""
HELP = "take images out of cache and embeddings for good, and list all that still carries them"


def arguments(parser: ArgumentParser) -> None:
    """Add the images, and the option to do it."""
    parser.add_argument("image", nargs="+", metavar="IMAGE", help="its path, id or sha256")
    parser.add_argument("--yes", action="store_true", help="do it; without this, only say what would be done")


def main(params: Params, image: list[str], *, yes: bool = False) -> str:
    """Forget the images with these bytes, or say what would be done; return what was done and what is left to do.

    Args:
        params: where data and cache are.
        image: ids, paths or sha256s (8 digits are enough) of images; all images with the same bytes are forgotten.
        yes: do it.

    Raises:
        InputError: if an image is unknown or ambiguous; then nothing is done.
        StateError: if an `embed` is running, which could put rows back.

    """
    table = manifest.read() if MANIFEST.exists() else None
    gone = _resolve(image, table)
    left = list(carriers.find(params, table, gone))  # first, so that a file that cannot be read stops it in time
    with processes.alone(EMBED_LOCK, "`headswap embed`") if yes else nullcontext():
        removed = list(_remove(params, gone, dry=not yes))
    listed = ", ".join(f"{sha256[:10]}..." for sha256 in gone)
    done = "removed" if yes else "would be removed; nothing was: add --yes"
    return "\n".join([
        f"{counted(len(gone), 'image')} (sha256 {listed}): {done}:",
        *_indented(removed),
        "still carried by:" if left else "nothing else is known to carry them",
        *_indented(left),
        *_next(params, raw=any(how.startswith("the image itself") for _, how in left)),
    ])  # fmt: skip


def _indented(rows: Sequence[tuple[str, str]]) -> list[str]:
    return [f"  {line}" for line in aligned(rows).splitlines()] if rows else []


def _next(params: Params, *, raw: bool) -> Iterator[str]:
    if others := [user for root in caches(params) for user in users.others(root).values()]:
        yield f"the cache is shared: {', '.join(others)} may hold the images, too, and put them back"
    yield "next:"
    if raw:
        yield "  delete the raw files named above, and their lines in labels.csv if there is one"
    yield "  dvc repro              # trains everything anew: results will differ a little"
    if objects.are_shared():
        yield "  dvc gc --workspace --projects ...    # name all that share DVC's cache; removes what none needs"
    else:
        yield "  dvc gc --workspace     # also removes from DVC's cache what only older commits need"
    if _has_remote():
        yield f"  dvc gc --workspace --cloud{' --projects ...' if objects.are_shared() else ''}"
    yield "  headswap audit         # proves that nothing here carries them"
    yield f"  git commit {EXCLUDED} {locks.LOCK} {' '.join(artifacts.IN_GIT)}"


def _has_remote() -> bool:
    places = [Path(".dvc/config"), Path(".dvc/config.local")]
    texts = [path.read_text(encoding="utf-8") for path in places if path.is_file()]
    return any(re.search(r"^\s*\[\s*'?remote\b", text, re.MULTILINE) for text in texts)


# --- Which images are meant ---------------------------------------------------------------------------------------


def _resolve(wanted: Sequence[str], table: Manifest | None) -> list[str]:
    """Return the sha256s that the names mean, sorted; InputError with a line for each unknown or ambiguous name."""
    names = _names(table)
    if any(not _matches(name, names) for name in wanted):  # reading the history takes longer
        for name, sha256s in _names_in_history().items():
            names.setdefault(name, sha256s)
    found, problems = set[str](), []
    for name in dict.fromkeys(wanted):
        meant = _matches(name, names)
        if not meant:
            problems.append(f"IMAGE: got {name!r}, expected the id, path or sha256 of an image; none is meant by it")
        elif len(meant) > 1:
            listed = ", ".join(meant)
            problems.append(f"IMAGE: got {name!r}, which means {len(meant)} images; expected one of: {listed}")
        found.update(meant)
    if problems:
        raise InputError(*problems, "nothing was done")
    return sorted(found)


def _matches(name: str, names: Names) -> list[str]:
    meant = names.get(name, set()) | names.get(locks.shown(Path(name)), set())
    if re.fullmatch("[0-9a-f]{8,64}", name):
        meant |= {sha256 for some in names.values() for sha256 in some if sha256.startswith(name)}
    return sorted(meant)


def _names(table: Manifest | None) -> Names:
    names: Names = defaultdict(set, {sha256: {sha256} for sha256 in exclusions.read()})
    if table is not None:
        _add(names, zip(table.image_id, table.path, table.sha256, strict=True))
    return names


def _add(names: Names, rows: Iterable[tuple[str, str, str]]) -> None:
    """Add rows of a manifest; a name that is the id of one image and the path of another means both."""
    for row in rows:
        for name in row:
            names[name].add(row[2])


def _names_in_history() -> Names:
    """Read the manifests that DVC's cache still holds: the image's file may have been deleted long ago."""
    names: Names = defaultdict(set)
    stages = [stage for _, lock in locks.history() if lock for stage in lock.values()]
    for md5 in {stage.outs[MANIFEST.as_posix()].md5 for stage in stages if MANIFEST.as_posix() in stage.outs}:
        try:
            columns = manifest.columns_of(locks.read_object(md5) or b"", ["image_id", "path", "sha256"])
        except StateError:
            continue
        _add(names, zip(*columns, strict=True))
    return names


# --- Taking them out ----------------------------------------------------------------------------------------------


def _remove(params: Params, gone: Sequence[str], *, dry: bool) -> Iterator[tuple[str, str]]:
    """Remove the images from one place after the other, or say what would be removed."""
    listed = set(gone) & set(exclusions.forgotten())
    stored = [(root, upkeep.recipes(root)) for root in caches(params)]  # first, as it may raise
    if not dry:
        exclusions.add(gone, FORGOTTEN)
    yield str(EXCLUDED), f"{len(gone) - len(listed)} added, {len(listed)} already listed"
    images = sha256_of(keys_of(gone))
    for root, recipes in stored:
        change = Change()
        for recipe in recipes:
            change += upkeep.forget(recipe, images, dry=dry)
        lost = f"{counted(change.rows, 'row')} in {counted(change.shards, 'shard')}"
        yield str(root), f"{lost} (an unreadable shard is removed whole)"
    kept, names = len(store.remove(gone, dry=dry)), memo.forget(gone, dry=dry)
    yield str(STORE), f"{counted(kept, 'image')}, and {counted(names, 'name')} in {memo.MEMO}"
    for path in artifacts.EMBEDDINGS.here():
        rows = matrix.forget(path.stem, images, dry=dry)
        yield (
            str(path),
            counted(rows, "row") if rows or path.exists() else "the whole file, as it does not match its stamp",
        )
    trainings = checkpoints()
    for folder in () if dry else trainings:
        shutil.rmtree(folder)
    yield str(runs.CHECKPOINTS), f"{len(trainings)} interrupted trainings"
