"""quality: manifest + embeddings + pixels -> what is wrong with the data, listed for a person to look and decide.

With `apply` it puts what a person decided into data/excluded.csv instead, which `prepare` obeys from then on; with
`exclude_copies`, what the list suggests of near-duplicates.
"""

from argparse import ArgumentParser
from pathlib import Path

from pipeline.core.errors import CheckFailed
from pipeline.core.params import Params
from pipeline.data import exclusions, manifest
from pipeline.heads import inputs
from pipeline.quality import checks, decisions, files, leaks
from pipeline.quality.checks import CHECKS

HELP = "stage: look for duplicates, wrong labels, outliers and blank images; list them in reports/quality.csv"


def arguments(parser: ArgumentParser) -> None:
    """Offer to act on the list instead of making it."""
    copies = "instead: leave out one of every two near-duplicates, as that list suggests"
    parser.add_argument("--exclude-copies", action="store_true", help=copies)
    decided = "instead: leave out what FILE, a copy of that list, decides to exclude"
    parser.add_argument("--apply", metavar="FILE", help=decided)


def main(params: Params, *, apply: str | None = None, exclude_copies: bool = False) -> str:
    """Look for what is wrong, write reports/quality.json and .csv, and return the summary line.

    Of several backbones the first one's embeddings are looked at: a wrong label is a fact about the data.

    Raises:
        CheckFailed: with `data.on_leak: fail`, if splits share images; the files are written first.

    """
    if apply is not None or exclude_copies:
        return _excluded(apply)
    backbone = params.run.backbones[0]
    given = inputs.read(params, backbone, streams=True)
    found = files.content(given.table, checks.run(params, given), CHECKS)
    files.write(given.table, found, len(given.row), inputs.made_from(backbone))
    summary = files.summary(found, len(given.row))
    if params.data.on_leak == "fail" and (leaking := leaks.find(params, given.table)):
        raise CheckFailed(*map(str, leaking), "data.on_leak is fail in params.yaml", printed=summary)
    return summary


def _excluded(file: str | None) -> str:
    """Exclude what a file decides, or without one what the list suggests of near-duplicates."""
    table = manifest.read()
    if file is None:
        return decisions.exclude(decisions.suggested(table, files.read()), table)
    return decisions.exclude(decisions.read(Path(file), table, frozenset(exclusions.read())), table)
