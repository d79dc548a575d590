"""diff: say what changed between two revisions, and which results moved because of it."""

from argparse import ArgumentParser
from collections.abc import Sequence

from pipeline.core.errors import InputError
from pipeline.core.params import Params
from pipeline.core.printable import printable
from pipeline.lineage.diff import revisions
from pipeline.lineage.diff.changes import Changes

HELP = "say what changed between two commits: images, splits, recipe, heads, results, and which moved for what reason"


def arguments(parser: ArgumentParser) -> None:
    """Add one or two revisions."""
    which = "a commit, branch or tag; the working tree if only one is given"
    parser.add_argument("revision", nargs="+", metavar="REVISION", help=which)


def main(params: Params, revision: Sequence[str]) -> str:  # noqa: ARG001  # what is compared are the locks' own
    """Compare two revisions, or one with the working tree; return the text."""
    if len(revision) > 2:
        raise InputError(f"REVISION: got {len(revision)}, expected one or two")
    before, *rest = (revisions.at(one) for one in revision)
    after = rest[0] if rest else revisions.working_tree()
    return "\n".join(map(printable, Changes(before, after).lines()))
