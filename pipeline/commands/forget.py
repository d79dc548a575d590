"""forget: take images out of cache and embeddings for good, and list all that still carries them.

What is removed is removed in an order in which a kill loses nothing that is kept, and doing it again completes it. The
list of excluded images comes first: from then on `prepare` leaves the images out and the audit looks for them.
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
from pipeline.data import exclusions, manifest
from pipeline.data.exclusions import EXCLUDED, FORGOTTEN
from pipeline.data.manifest import MANIFEST, Manifest
from pipeline.data.sources import memo, store
from pipeline.embeddings import matrix, upkeep, users
from pipeline.embeddings.upkeep import Change
from pipeline.evaluation import runs
from pipeline.lineage.audit import carriers, objects
from pipeline.lineage.audit.carriers import caches, checkpoints, hashes

Names = dict[str, set[str]]
"""An image's id, path or sha256 -> the sha256s it may mean."""
HELP = "take images out of cache and embeddings for good, and list all that still carries them"


def arguments(parser: ArgumentParser) -> None:
    """Ask for images; offer to do it."""
    parser.add_argument("image", nargs="+", metavar="IMAGE", help="its path, id or sha256")
    parser.add_argument("--yes", action="store_true", help="do it; without this, only say what would be done")


def main(params: Params, image: list[str], *, yes: bool = False) -> str:
    """Forget the images with these bytes, or say what that would do; return what was done and what is left to do.

    Args:
        params: where data and cache are.
        image: an image's id, path or sha256, of which 8 digits are enough; all images with the same bytes go together.
        yes: do it.

    Raises:
        InputError: if one of the images is unknown or ambiguous; nothing is done then.
        StateError: if an `embed` that may put rows back is at work.

    """
    table = manifest.read() if MANIFEST.exists() else None
    gone = _resolved(image, table)
    left = list(carriers.find(params, table, gone))  # first: what cannot be read stops it before anything is done
    with processes.alone(EMBED_LOCK, "`headswap embed`") if yes else nullcontext():
        removed = list(_removed(params, gone, dry=not yes))
    listed = ", ".join(f"{sha256[:10]}..." for sha256 in gone)
    done = "removed" if yes else "would be removed; nothing was: add --yes"
    return "\n".join([
        f"{len(gone)} images by their bytes (sha256 {listed}): {done}:",
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
        yield "  dvc gc --workspace --projects ...    # all that share DVC's cache; what none of them needs goes"
    else:
        yield "  dvc gc --workspace     # takes what only older commits need out of DVC's cache, too"
    if _has_remote():
        yield f"  dvc gc --workspace --cloud{' --projects ...' if objects.are_shared() else ''}"
    yield "  headswap audit         # proves that nothing here carries them"
    yield f"  git commit {EXCLUDED} {locks.LOCK} {' '.join(artifacts.IN_GIT)}"


def _has_remote() -> bool:
    places = [Path(".dvc/config"), Path(".dvc/config.local")]
    texts = [path.read_text(encoding="utf-8") for path in places if path.is_file()]
    return any(re.search(r"^\s*\[\s*'?remote\b", text, re.MULTILINE) for text in texts)


# --- Which images are meant ---------------------------------------------------------------------------------------


def _resolved(wanted: Sequence[str], table: Manifest | None) -> list[str]:
    """Return the sha256s that are meant, sorted; InputError with a line for every name that means none or several."""
    names = _names(table)
    if any(not _meant(name, names) for name in wanted):  # the history takes longer to read
        for name, sha256s in _names_in_history().items():
            names.setdefault(name, sha256s)
    found, problems = set[str](), []
    for name in dict.fromkeys(wanted):
        meant = _meant(name, names)
        if not meant:
            problems.append(f"IMAGE: got {name!r}, expected the id, path or sha256 of an image; none is meant by it")
        elif len(meant) > 1:
            problems.append(
                f"IMAGE: got {name!r}, which means {len(meant)} images; expected one of: {', '.join(meant)}"
            )
        found.update(meant)
    if problems:
        raise InputError(*problems, "nothing was done")
    return sorted(found)


def _meant(name: str, names: Names) -> list[str]:
    meant = names.get(name, set()) | names.get(locks.shown(Path(name)), set())
    if re.fullmatch("[0-9a-f]{8,64}", name):
        meant |= {one for one in names if _is_sha256(one) and one.startswith(name)}
    return sorted(meant)


def _is_sha256(name: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", name) is not None


def _names(table: Manifest | None) -> Names:
    names: Names = defaultdict(set, {sha256: {sha256} for sha256 in exclusions.read()})
    if table is not None:
        _add(names, zip(table.image_id, table.path, table.sha256, strict=True))
    return names


def _add(names: Names, rows: Iterable[tuple[str, str, str]]) -> None:
    """Add rows of a manifest; the id of one image may be the path of another, and then means both."""
    for row in rows:
        for name in row:
            names[name].add(row[2])


def _names_in_history() -> Names:
    """Read the manifests that DVC's cache still holds: a removal request may come when the file is long gone."""
    names: Names = defaultdict(set)
    for md5 in {entry.md5 for _, lock in locks.history() if lock for entry in _manifests(lock)}:
        try:
            columns = manifest.columns_of(locks.read_object(md5) or b"", ["image_id", "path", "sha256"])
        except StateError:
            continue
        _add(names, zip(*columns, strict=True))
    return names


def _manifests(lock: locks.Lock) -> Iterator[locks.Entry]:
    for stage in lock.values():
        if MANIFEST.as_posix() in stage.outs:
            yield stage.outs[MANIFEST.as_posix()]


# --- Taking them out ----------------------------------------------------------------------------------------------


def _removed(params: Params, gone: Sequence[str], *, dry: bool) -> Iterator[tuple[str, str]]:
    """Take the images out, one place after the other, or say what that would take."""
    listed = set(gone) & set(exclusions.forgotten())
    stored = [(root, upkeep.recipes(root)) for root in caches(params)]  # or that says what is wrong with them
    if not dry:
        exclusions.add(gone, FORGOTTEN)
    yield str(EXCLUDED), f"{len(gone) - len(listed)} added to what is left out, {len(listed)} in it already"
    images = hashes(gone)
    for root, recipes in stored:
        change = Change()
        for recipe in recipes:
            change += upkeep.forget(recipe, images, dry=dry)
        yield str(root), f"{change.rows} rows in {change.shards} shards, or what of these cannot be read"
    yield (
        str(STORE),
        f"{len(store.remove(gone, dry=dry))} images, and {memo.forget(gone, dry=dry)} names in {memo.MEMO}",
    )
    for path in artifacts.EMBEDDINGS.here():
        rows = matrix.forget(path.stem, images, dry=dry)
        yield str(path), f"{rows} rows" if rows or path.exists() else "the file, for it is not what its stamp says"
    trainings = checkpoints()
    for folder in () if dry else trainings:
        shutil.rmtree(folder)
    yield str(runs.CHECKPOINTS), f"{len(trainings)} interrupted trainings"
