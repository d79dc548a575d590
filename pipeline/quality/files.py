"""The findings as files: JSON for programs, CSV for a person's decisions, and their stamp."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.core import artifacts, stamps
from pipeline.core.atomic import write_json
from pipeline.core.errors import StateError
from pipeline.core.tables import write_csv
from pipeline.core.words import counted
from pipeline.data.manifest import Manifest

FINDINGS, LIST, STAMP = artifacts.FINDINGS.at(), artifacts.FINDINGS_LIST.at(), artifacts.FINDINGS.stamp_at()
COLUMNS = ("finding", "image_id", "path", "sha256", "split", "label", "other", "score", "suggestion", "decision")
# To change the layout: raise this number; `read` then refuses older files and says what to run.
SCHEMA_VERSION = 1

Findings = Mapping[str, Any]
"""check -> title, meaning, images, across_splits, thresholds, note, findings."""


def content(table: Manifest, found: Mapping[str, Any], checks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checks' entries in reports/quality.json, from name -> CheckResult and name -> Check."""
    return {
        name: {
            "title": checks[name].title,
            "meaning": checks[name].meaning,
            "images": len({finding.row for finding in one.findings}),
            "across_splits": len({
                frozenset((finding.row, finding.other))
                for finding in one.findings
                if finding.other is not None and table.split[finding.row] != table.split[finding.other]
            }),
            "thresholds": dict(one.thresholds),
            "note": one.note,
            "findings": [
                {**asdict(finding), "image_id": table.image_id[finding.row], "other": _other(table, finding.other)}
                for finding in one.findings
            ],
        }
        for name, one in found.items()
    }  # fmt: skip


def _other(table: Manifest, row: int | None) -> str | None:
    return None if row is None else table.image_id[row]


def write(table: Manifest, checks: Findings, images: int, made_from: Mapping[str, str]) -> None:
    """Write findings, list and stamp; the same findings give the same bytes.

    Args:
        table: the manifest, to whose rows the findings refer.
        checks: as `content` returns it.
        images: how many were checked.
        made_from: path -> sha256 of the inputs.

    """
    rows = [[
        name, finding["image_id"], table.path[row], table.sha256[row], table.split[row], table.label[row],
        finding["other"] or "", "" if finding["score"] is None else finding["score"], finding["suggestion"], "",
    ] for name, check in checks.items() for finding in check["findings"] for row in (finding["row"],)]  # fmt: skip
    in_order = [{"name": name, **check} for name, check in checks.items()]
    write_json(FINDINGS, {"schema_version": SCHEMA_VERSION, "images": images, "checks": in_order})
    write_csv(LIST, [COLUMNS, *rows])
    stamps.write(STAMP, stamps.Stamp("quality", stamps.hashes([FINDINGS, LIST]), made_from))


_SEVERAL = {"blank": "blank", "tiny class": "images in tiny classes"}
"""Names of checks whose plural is not with an s."""


def summary(checks: Findings, images: int) -> str:
    """Count what was found, in a line, and say what could not be looked for."""
    found = ((check["images"], name.replace("_", " ")) for name, check in checks.items() if check["images"])
    counts = [counted(count, name, _SEVERAL.get(name, "")) for count, name in found]
    notes = [f"; {name}: {one['note']}" for name, one in checks.items() if one["note"] and not one["images"]]
    result = f"{', '.join(counts)}; look at {LIST} and decide" if counts else "nothing found"
    return f"{counted(images, 'image')} looked at: {result}{''.join(notes)}"


def read() -> Findings:
    """Read the findings; StateError unless their bytes are the stamped ones."""
    found = json.loads(stamps.check(FINDINGS, stamps.read(STAMP)))
    if found["schema_version"] != SCHEMA_VERSION:
        got = found["schema_version"]
        raise StateError(f"{FINDINGS}: schema_version: got {got}, expected {SCHEMA_VERSION}; run `dvc repro --force`")
    return {check["name"]: check for check in found["checks"]}


def pairs_across_splits(table: Manifest, least: float) -> list[tuple[int, int, float]]:
    """Return the near-duplicates with at least that score in two different splits, by rows of the manifest.

    Missing findings count as none; the check of the chain reports them, and those of an older manifest.
    """
    try:
        found = read()["near_duplicate"]["findings"]
    except (StateError, KeyError, ValueError):
        return []
    row_of, pairs = table.row_of(), dict[frozenset[int], tuple[int, int, float]]()
    for finding in found:
        one, two = row_of.get(finding["image_id"]), row_of.get(finding["other"])
        if one is None or two is None or finding["score"] < least or table.sha256[one] == table.sha256[two]:
            continue
        if table.split[one] != table.split[two]:
            pairs.setdefault(frozenset((one, two)), (one, two, finding["score"]))
    return list(pairs.values())
