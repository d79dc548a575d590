"""prepare: images and labels -> data/manifest.parquet."""

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.core.params import Params
from pipeline.core.words import counted
from pipeline.data import exclusions, manifest, sources
from pipeline.data.manifest import Manifest, stored_path
from pipeline.data.splits import methods

HELP = "stage: hash the images, deal the splits, write data/manifest.parquet"


def main(params: Params) -> str:
    """Hash every image, leave out the excluded ones, deal the splits, write the manifest; return the summary line.

    Afterwards the store holds the images that are no files of their own.
    """
    with _uncollected():
        return _prepare(params)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let the collector of cycles rest: there are none among a million records, and it looks again and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _prepare(params: Params) -> str:
    place, excluded = sources.place_of(params.data), exclusions.read()
    every = sources.listed(place)
    found = sources.hashed(place, [record.path for record in every], excluded)
    records, contents = exclusions.included(every, found, excluded)
    names = [record.path for record in records]
    table = Manifest(
        image_id=names,
        path=[stored_path(one) for one in contents] if place.in_store else [place.shown(name) for name in names],
        sha256=contents,
        label=[record.label for record in records],
        group=[record.group for record in records],
        split=methods.assign(records, contents, params.split, params.seed),
    )
    gone = len(every) - len(records)
    manifest.write(table, facts={**manifest.settings_of(params), "excluded": gone})
    counts = Counter(table.split)
    dealt = ", ".join(f"{counts[split]} {split}" for split in manifest.SPLITS)
    notes = [f"{gone} left out by {exclusions.EXCLUDED}"] if gone else []
    if merged := methods.merged(records, contents, params.split):
        notes.append(f"groups merged, for they share images with others: {merged}")
    images, classes = counted(len(table), "image"), counted(len(table.classes), "class", "classes")
    return "; ".join([f"{images}, {len(set(contents)):,} distinct, {classes}: {dealt}", *notes])
