"""A person's decisions in a copy of reports/quality.csv: which images to exclude for good, and why."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path

from pipeline.core import stamps
from pipeline.core.errors import InputError, StateError, first_five, unknown
from pipeline.data import exclusions
from pipeline.data.exclusions import EXCLUDED
from pipeline.data.manifest import Manifest
from pipeline.quality.checks import CHECKS
from pipeline.quality.files import COLUMNS, FINDINGS, LIST, Findings

DECISIONS = ("exclude", "keep")
"""An empty cell means keep, too."""


def read(path: Path, table: Manifest, excluded: frozenset[str]) -> dict[str, str]:
    """Return sha256 -> reason of the images that a person decided to exclude.

    The reason refers to other images by their hashes alone: the list of excluded images contains no names.

    Args:
        path: a copy of reports/quality.csv with its column `decision` filled.
        table: the manifest, which must know every image.
        excluded: sha256 of images that are excluded already, which the manifest may lack.

    Raises:
        InputError: if the file is not such a table, with its malformed lines.

    """
    rows = _rows(path)
    known = dict(zip(table.image_id, table.sha256, strict=True))
    problems = [problem for number, row in rows for problem in _problems(f"{path}:{number}", row, known, excluded)]
    problems += [] if problems else _contradictions(path, rows)
    if problems:
        raise InputError(*first_five(problems, "lines"), "nothing was excluded")
    reasons: dict[str, list[str]] = {}
    for _, row in rows:
        if row["decision"] == "exclude":
            reasons.setdefault(row["sha256"], []).append(_reason(row, known))
    return {sha256: "; ".join(dict.fromkeys(why)) for sha256, why in reasons.items()}


def suggested(table: Manifest, found: Findings) -> dict[str, str]:
    """Return sha256 -> reason of the near-duplicates that the findings suggest to exclude, as `read` does.

    Raises:
        StateError: if the findings are of another manifest.

    """
    known, reasons, kept = dict(zip(table.image_id, table.sha256, strict=True)), dict[str, list[str]](), set[str]()
    for finding in found["near_duplicate"]["findings"]:
        image_id, other = finding["image_id"], finding["other"]
        if image_id not in known or other not in known:
            raise StateError(f"{FINDINGS}: of another manifest; run `dvc repro`")
        row = {"finding": "near_duplicate", "sha256": known[image_id], "other": other, "score": str(finding["score"])}
        if finding["suggestion"].startswith("exclude"):
            reasons.setdefault(row["sha256"], []).append(_reason(row, known))
        elif finding["suggestion"] == "keep":
            kept.add(row["sha256"])
    return {sha256: "; ".join(dict.fromkeys(why)) for sha256, why in reasons.items() if sha256 not in kept}


def exclude(reasons: Mapping[str, str], table: Manifest) -> str:
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


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the rows with their line numbers, from 1, each as column -> value."""
    if not path.is_file():
        raise InputError(f"--apply: {path}: no such file; expected a copy of {LIST} with its decisions")
    try:
        reader = csv.reader(StringIO(stamps.read_bytes(path).decode("utf-8-sig"), newline=""), strict=True)
        lines = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a table in UTF-8 ({error})") from error
    columns = lines[0][1] if lines else []
    if tuple(columns) != COLUMNS:
        raise InputError(f"{path}:1: columns: got {columns}, expected {list(COLUMNS)}", "nothing was excluded")
    if short := [f"{path}:{number}: got {len(row)} cells, expected {len(COLUMNS)}" for number, row in lines
                 if len(row) != len(COLUMNS)]:  # fmt: skip
        raise InputError(*first_five(short, "lines"), "nothing was excluded")
    return [
        (number, {**dict(zip(COLUMNS, row, strict=True)), "decision": row[-1].strip().lower()})
        for number, row in lines[1:]
    ]


def _problems(where: str, row: dict[str, str], known: Mapping[str, str], excluded: frozenset[str]) -> Iterator[str]:
    if row["decision"] and row["decision"] not in DECISIONS:
        yield unknown(f"{where}: decision", row["decision"], DECISIONS)
    if row["finding"] not in CHECKS:
        yield unknown(f"{where}: finding", row["finding"], CHECKS)
    if row["score"] and not re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", row["score"]):
        yield f"{where}: score: got {row['score']!r}, expected a number or nothing"
    expected = known.get(row["image_id"])
    if row["sha256"] != expected and row["sha256"] not in excluded:
        wanted = f"{expected!r}, which is that of {row['image_id']}" if expected else "that of an image in the manifest"
        yield f"{where}: sha256: got {row['sha256']!r}, expected {wanted}"


def _contradictions(path: Path, rows: Sequence[tuple[int, dict[str, str]]]) -> list[str]:
    """Return a line for every image that one line excludes and another keeps."""
    first: dict[str, tuple[int, str]] = {}
    problems = []
    for number, row in rows:
        decision = row["decision"]
        before, other = first.setdefault(row["sha256"], (number, decision)) if decision else (number, decision)
        if other != decision:
            problems.append(
                f"{path}:{number}: decision: got {decision!r}, but {other!r} for the same bytes in line {before}"
            )
    return problems


def _reason(row: dict[str, str], sha256_of: dict[str, str]) -> str:
    sha256 = sha256_of.get(row["other"], row["sha256"])
    other = f" of {sha256[:10]}" if sha256 != row["sha256"] else ""
    return f"quality: {row['finding']}{other} ({row['score']})"
