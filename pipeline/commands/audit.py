"""audit: compare every byte with reports/lineage.json, the stamps and dvc.lock."""

import json as json_
from argparse import ArgumentParser

from pipeline.core.errors import CheckFailed, InputError, first_five
from pipeline.core.params import Params
from pipeline.core.printable import printable
from pipeline.core.words import counted
from pipeline.lineage.audit.audit import Audit, audit

REMEDY = "what to do: docs/lineage.md, When something was altered"
HELP = "read every byte from images to verdict, dvc.lock and DVC's cache; name all that was altered and exit with 1"


def arguments(parser: ArgumentParser) -> None:
    """Add options: check less, check more, print JSON."""
    parser.add_argument("--quick", action="store_true", help="check structure and stamps, and read no large file")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    again = "also push N random images through the CNN again, and compare with the stored rows"
    parser.add_argument("--recompute", type=int, metavar="N", default=0, help=again)


def main(params: Params, *, quick: bool = False, json: bool = False, recompute: int = 0) -> str:
    """Verify everything; return the summary, or raise CheckFailed with all findings."""
    if recompute < 0 or (quick and recompute):
        raise InputError(f"--recompute: got {recompute}, expected 1 or more images, and no --quick beside it")
    done = audit(params, quick=quick, recomputed=recompute)
    printed = json_.dumps(done.content(), indent=2) if json else _printed(done)
    failing = [*done.findings, *(done.leaks if params.data.on_leak == "fail" else [])]
    if failing:
        lines = [] if json else [*map(str, failing), f"{len(failing)} finding{'s'[: len(failing) > 1]}; {REMEDY}"]
        raise CheckFailed(*lines, printed=printed)
    return printed


def _printed(done: Audit) -> str:
    leaks = first_five([str(leak) for leak in done.leaks], "leaks and conflicts; `--json` lists them")
    lines = [f"note: {printable(note)}" for note in (*leaks, *done.notes)]
    lines += [
        f"{backbone}: {counted(one.rows, 'row')} recomputed: {one.identical} bit for bit, {one.different} different"
        for backbone, one in done.recomputed.items()
    ]
    took = f"{done.bytes / 1e6:.1f} MB in {done.seconds:.1f} s"
    if done.quick:
        summary, conclusion = (
            f"{counted(done.files, 'stamp or table', 'stamps and tables')} read, {took}",
            "sizes agree, contents were not read",
        )
    else:
        summary, conclusion = (
            f"{counted(done.files, 'file')}, {counted(done.images, 'image')} among them, {took}",
            "nothing was altered",
        )
    return "\n".join([*lines, summary if done.findings else f"{summary}: {conclusion}"])
