"""The sha256 of every image: from the memo if the file's fingerprint is the same, else from all its bytes."""

import time
from collections.abc import Collection, Sequence

from tqdm import tqdm

from pipeline.data.sources import memo, store
from pipeline.data.sources.place import Place

SAVE_EVERY = 30
"""Seconds between two saves of the memo: the most work that a kill may cost."""


def hashed(place: Place, names: Sequence[str], unwanted: Collection[str] = ()) -> list[str]:
    """Return the sha256 of every file's bytes, (N,); afterwards the store holds those that have no file of their own.

    The memo is saved now and then, so that a run continues where a killed one stopped.

    Args:
        place: where the files are.
        names: (N,) their names, each once.
        unwanted: sha256s of images that neither store nor memo may hold.

    Raises:
        InputError: if a file cannot be read.
        OSError: if the store cannot be written.

    """
    keys, fingerprints = [place.shown(name) for name in names], list(place.fingerprints(names))
    known = [None if sha256 in unwanted else sha256 for sha256 in memo.read(keys, fingerprints)]
    if place.in_store:
        store.tidy()
        there = store.present()
        known = [sha256 if sha256 in there else None for sha256 in known]

    def save() -> None:
        if place.in_store:
            store.flush()  # before the memo says that the images are there
        memo.write(keys, fingerprints, [None if sha256 in unwanted else sha256 for sha256 in known])

    row_of = {name: row for row, name in enumerate(names) if known[row] is None}
    saved = time.monotonic()
    if row_of:
        try:
            with tqdm(total=len(row_of), desc="hash", unit="image", disable=None) as bar:
                for files in place.hashed(list(row_of), unwanted, keep=place.in_store):
                    for name, sha256, fingerprint in files:
                        known[row_of[name]], fingerprints[row_of[name]] = sha256, fingerprint
                    bar.update(len(files))
                    if time.monotonic() - saved >= SAVE_EVERY:
                        save()
                        saved = time.monotonic()
        finally:
            save()
    return [sha256 for sha256 in known if sha256 is not None]


def read_again(place: Place, names: Sequence[str]) -> dict[str, str]:
    """Read files in full whatever the memo says, and store none; return name -> sha256; InputError as `hashed`."""
    return {file.name: file.sha256 for files in place.hashed(names, (), keep=False) for file in files}
