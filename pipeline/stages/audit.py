"""audit: tie the stamps into reports/lineage.json (--record), or verify every byte against it and dvc.lock."""

import json as json_

from pipeline.core.errors import CheckFailed, InputError, first_five
from pipeline.core.params import Params
from pipeline.core.printable import printable
from pipeline.lineage import chain
from pipeline.lineage.audit.audit import Audit, audit

REMEDY = "what to do: docs/lineage.md, When something was altered"


def main(params: Params, *, record: bool = False, quick: bool = False, json: bool = False, recompute: int = 0) -> str:
    """Record or verify; return the summary, or raise CheckFailed with every finding."""
    if record:
        tied = chain.record(params)
        return f"{len(tied.nodes)} files and {tied.images} images tied together in {chain.LINEAGE}"
    if recompute < 0 or (quick and recompute):
        raise InputError(f"--recompute: got {recompute}, expected 1 or more images, and no --quick beside it")
    done = audit(params, quick=quick, recomputed=recompute)
    printed = json_.dumps(done.content(), indent=2) if json else _printed(done)
    failing = [*done.findings, *(done.leaks if params.data.on_leak == "fail" else [])]
    if failing:
        told = [] if json else [*map(str, failing), f"{len(failing)} finding{'s'[: len(failing) > 1]}; {REMEDY}"]
        raise CheckFailed(*told, printed=printed)
    return printed


def _printed(done: Audit) -> str:
    leaks = first_five([str(leak) for leak in done.leaks], "leaks and conflicts; `--json` lists them")
    lines = [f"note: {printable(note)}" for note in (*leaks, *done.notes)]
    lines += [
        f"{backbone}: {told.rows} rows recomputed: {told.identical} bit for bit, {told.different} different"
        for backbone, told in done.recomputed.items()
    ]
    took = f"{done.bytes / 1e6:.1f} MB in {done.seconds:.1f} s"
    if done.quick:
        summary, well = f"{done.files} stamps and tables read, {took}", "sizes agree, contents were not read"
    else:
        summary, well = f"{done.files} files, {done.images} images among them, {took}", "nothing was altered"
    return "\n".join([*lines, summary if done.findings else f"{summary}: {well}"])
