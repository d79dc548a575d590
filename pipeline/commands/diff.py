"""diff: say what changed between two revisions, and which results moved because of it."""

from collections.abc import Sequence

from pipeline.errors import InputError
from pipeline.lineage.differences import revisions
from pipeline.lineage.differences.changes import Changes
from pipeline.params import Params
from pipeline.printable import printable


def main(params: Params, revision: Sequence[str]) -> str:  # noqa: ARG001  # what is compared are the locks' own
    """Compare two revisions, or one with the working tree; return the text."""
    if len(revision) > 2:
        raise InputError(f"REVISION: got {len(revision)}, expected one or two")
    before, *rest = (revisions.at(one) for one in revision)
    after = rest[0] if rest else revisions.working_tree()
    return "\n".join(map(printable, Changes(before, after).lines()))
