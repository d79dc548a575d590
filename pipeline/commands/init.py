"""init: look at somebody's images, say what is in them, and write the sections of params.yaml that are about them."""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.cost import duration
from pipeline.core.errors import InputError
from pipeline.core.params import PARAMS, Params
from pipeline.core.printable import printable
from pipeline.core.sections import Data
from pipeline.core.words import counted
from pipeline.data import exclusions, sources
from pipeline.data.init import choices, location, overview, params_file
from pipeline.data.manifest import stored_path
from pipeline.data.splits import methods

TIMED = 32
"""Images that are pushed through the CNN to say what all of them will take."""
HELP = "look at your images, say what is in them, and write the data, split and run sections of params.yaml"


def arguments(parser: ArgumentParser) -> None:
    """Ask where the images are; offer not to ask again."""
    parser.add_argument("--yes", action="store_true", help="write without asking")
    where = (
        "a folder of class folders or of train, val and test; a CSV or Parquet of paths and labels; a zip or tar of "
        "these; a URL; or torchvision:<data set>"
    )
    parser.add_argument("--data", required=True, metavar="PATH", help=where)


def main(params: Params, *, data: str, yes: bool = False) -> str:
    """Recognise, look, choose, ask, write; return what comes next and what it will cost.

    Raises:
        InputError: if the images cannot be used, the answer is not yes, or there is no terminal to ask on.

    """
    found = location.recognise(data)
    settings = Data(**{**params.data.model_dump(), **found.settings()})
    place, excluded = sources.place_of(settings), exclusions.read()
    every = sources.listed(place)
    hashes = sources.hashed(place, [record.path for record in every], excluded)
    kept = [row for row, sha256 in enumerate(hashes) if sha256 not in excluded]
    records, contents = [every[row] for row in kept], [hashes[row] for row in kept]
    paths = [
        Path(stored_path(sha256)) if place.in_store else Path(place.shown(record.path))
        for record, sha256 in zip(records, contents, strict=True)
    ]
    seen = overview.of(records, contents, paths)
    print(f"{printable(data)}: {printable(found.why)}\n{overview.text(seen)}\n")  # noqa: T201
    new = params_file.rewriting(choices.sections(found, seen, params))
    methods.assign(records, contents, new.parsed().split, params.seed)
    if new.needed:
        _ask(new.changes(), yes=yes)
        new.write()
    price = _price(params, paths, contents)
    return f"{PARAMS}: {'written' if new.needed else 'says all that already'}; {price}; next: dvc repro"


def _price(params: Params, paths: Sequence[Path], contents: Sequence[str]) -> str:
    """Push a few images through the CNN, and say what all of them will take, in time and on disk."""
    from pipeline.networks import backbones, frozen_pass, runtime  # noqa: PLC0415  # after the question: torch takes seconds

    name, size = params.run.backbones[0], params.embed.batch_size
    loaded = backbones.load(name, params.backbone(name))
    forward = runtime.lazy(loaded.network, params.embed.runtime)
    step = max(1, len(paths) // TIMED)
    chosen = list(map(frozen_pass.Item, paths[::step], contents[::step]))[:TIMED]
    first = frozen_pass.seconds(chosen, forward, loaded.framing, size)  # prepares the runtime, too
    taken = frozen_pass.seconds(chosen, forward, loaded.framing, size) / len(chosen)
    each, total = 1000 * taken, taken * len(paths) + first
    return (
        f"the frozen pass of {name} over {counted(len(paths), 'image')} will take about {duration(total)}, and is "
        f"needed only once ({each:.0f} ms per image here, timed on {len(chosen)}, after {duration(first)} to start)"
    )


def _ask(changes: str, *, yes: bool) -> None:
    """Show what would change, and go on only with a yes; InputError otherwise."""
    print(changes)  # noqa: T201
    if yes:
        return
    if not sys.stdin.isatty():
        why = "input is not a terminal, so nobody was asked"
        raise InputError(f"{PARAMS}: not written: {why}; add --yes to write without asking")
    try:
        answer = input(f"Write this to {PARAMS}? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise InputError(f"{PARAMS}: not written, for the answer was not yes; run this again to be asked again")
