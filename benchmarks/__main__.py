"""Run every group, or the one named; print a table and write benchmarks/results.json."""

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.figures import remove_clones

GROUPS = (
    "run",
    "init",
    "prepare",
    "heads",
    "sweep",
    "streaming",
    "embed",
    "finetune",
    "compare",
    "report",
    "audit",
    "quality",
    "predict",
    "scale",
)
RESULTS = Path(__file__).parent / "results.json"


def main(only: list[str]) -> int:
    """Measure and print as it goes; return 0 if every figure holds, 1 if one does not, 2 for an unknown group."""
    if unknown := [name for name in only if name not in GROUPS]:
        print(f"benchmarks: got {unknown[0]!r}, expected one of: {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    figures = []
    try:
        for group in only or GROUPS:
            for figure in importlib.import_module(f"benchmarks.{group}").measure():
                figures.append(figure)
                mark = {True: "holds", False: "MISSED", None: ""}[figure.holds]
                print(f"{figure.value:9.2f} {figure.unit:<4} {figure.target:<10} {mark:<7} {figure.name}", flush=True)
    finally:
        remove_clones()
    RESULTS.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")
    return 0 if all(figure.holds is not False for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
