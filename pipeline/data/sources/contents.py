"""The sha256 of every image: from the memo where the file looks as it did, else from all its bytes."""

from collections.abc import Collection, Sequence

from tqdm import tqdm

from pipeline.data.sources import memo, store
from pipeline.data.sources.memo import Clock
from pipeline.data.sources.place import Place

Rows = tuple[list[str], list[str | None], list[str | None]]
"""(N,) each: what a file is called, what it looks like, its sha256."""
SAVED_SECONDS = 30
"""How much work a kill may cost."""


def hashed(place: Place, names: Sequence[str], unwanted: Collection[str] = ()) -> list[str]:
    """Return the sha256 of every file's bytes, (N,); afterwards the store holds those that are no files.

    Args:
        place: where they are.
        names: (N,) which, each once.
        unwanted: sha256s of images that neither store nor memo is to hold.

    Raises:
        InputError: if one cannot be read.
        OSError: if the store cannot be written.

    """
    keys, marks = [place.shown(name) for name in names], list(place.marks(names))
    known = [None if sha256 in unwanted else sha256 for sha256 in memo.read(keys, marks)]
    if place.in_store:
        store.tidy()
        there = store.present()
        known = [sha256 if sha256 in there else None for sha256 in known]
    row_of = {name: row for row, name in enumerate(names) if known[row] is None}
    if row_of:
        _read(place, row_of, unwanted, (keys, marks, known))
    return [sha256 for sha256 in known if sha256 is not None]


def _read(place: Place, row_of: dict[str, int], unwanted: Collection[str], rows: Rows) -> None:
    """Read what is not known, and write the memo now and then, so that a killed run goes on where it was."""
    (_, marks, known), clock = rows, Clock(SAVED_SECONDS)
    bar = tqdm(total=len(row_of), desc="hash", unit="image", disable=None)
    try:
        with bar:
            for done in place.hashed(list(row_of), unwanted, keep=place.in_store):
                for name, sha256, mark in done:
                    known[row_of[name]], marks[row_of[name]] = sha256, mark
                bar.update(len(done))
                if clock.strikes():
                    _save(place, unwanted, rows)
    finally:
        _save(place, unwanted, rows)


def _save(place: Place, unwanted: Collection[str], rows: Rows) -> None:
    if place.in_store:
        store.flush()  # before the memo says that the images are there
    keys, marks, known = rows
    memo.write(keys, marks, [None if sha256 in unwanted else sha256 for sha256 in known])


def read_again(place: Place, names: Sequence[str]) -> dict[str, str]:
    """Read files in full whatever the memo says, and keep none; return name -> sha256; InputError as `hashed`."""
    return {one.name: one.sha256 for done in place.hashed(names, (), keep=False) for one in done}
