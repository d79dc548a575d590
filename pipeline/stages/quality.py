"""quality: manifest + embeddings + pixels -> what is wrong with the data, listed for a person to look and decide.

With `apply` it puts what a person decided into data/excluded.csv instead, which `prepare` obeys from then on; with
`exclude_copies`, what the list suggests of near-duplicates.
"""

from argparse import ArgumentParser
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from pipeline.core import stamps
from pipeline.core.errors import CheckFailed
from pipeline.core.params import Params
from pipeline.data import exclusions, manifest
from pipeline.data.exclusions import EXCLUDED
from pipeline.data.manifest import Manifest
from pipeline.embeddings import matrix
from pipeline.heads import inputs
from pipeline.heads.types import chosen_rows
from pipeline.quality import decisions, files, leaks, signatures
from pipeline.quality.checks import CHECKS
from pipeline.quality.findings import Material

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
    if apply is not None:
        table = manifest.read()
        return _excluded(decisions.read(Path(apply), table, frozenset(exclusions.read())), table)
    if exclude_copies:
        table = manifest.read()
        return _excluded(decisions.suggested(table, files.read()), table)
    backbone = params.run.backbones[0]
    given = inputs.read(params, backbone, streams=True)
    with tqdm(total=len(given.row), desc="quality: decode", unit="image", disable=None) as bar:
        seen = signatures.read(given.table, given.row, bar.update)
    with tqdm(total=len(CHECKS), desc="quality", unit="check", disable=None) as bar:
        material = Material(
            given.table, given.row, chosen_rows(given.images.X, given.images.image), signatures.parts(seen),
            params.data.near_duplicate, params.seed, bar.set_postfix_str,
        )  # fmt: skip
        found = {}
        for name, check in CHECKS.items():
            found[name] = check.run(material)
            bar.update()
    told = files.content(given.table, found, CHECKS)
    made_from = {**stamps.read(manifest.STAMP).outputs, **stamps.read(matrix.stamp_path(backbone)).outputs}
    files.write(given.table, told, len(given.row), made_from)
    summary = _summary(told, len(given.row))
    if params.data.on_leak == "fail" and (leaking := leaks.find(params, given.table)):
        raise CheckFailed(*map(str, leaking), "data.on_leak is fail in params.yaml", printed=summary)
    return summary


def _summary(told: files.Findings, images: int) -> str:
    counts = [f"{check['images']:,} {name.replace('_', ' ')}" for name, check in told.items() if check["images"]]
    if not counts:
        return f"{images:,} images looked at: nothing found"
    return f"{images:,} images looked at: {', '.join(counts)}; look at {files.LIST} and decide"


def _excluded(reasons: Mapping[str, str], table: Manifest) -> str:
    """Exclude images by sha256, each with its reason, or nothing at all; say what is left to do."""
    known = exclusions.read()
    new = {sha256: reason for sha256, reason in reasons.items() if sha256 not in known}
    exclusions.add_all(new)
    gone = known.keys() | new.keys()
    left = Counter(label for label, sha256 in zip(table.label, table.sha256, strict=True) if sha256 not in gone)
    lines = [f"{len(new)} images added to {EXCLUDED}, {len(reasons) - len(new)} were in it already"]
    lines += [f"warning: no image of class {name!r} is left" for name in table.classes if not left[name]]
    more = sum(count - 1 for sha256, count in Counter(table.sha256).items() if sha256 in new)
    lines += [f"warning: {more} further copies of them go, too: what is excluded is the bytes"] if more else []
    return "\n".join([*lines, f"commit {EXCLUDED} and run `dvc repro`" if new else "nothing to run"])
