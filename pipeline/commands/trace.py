"""trace: show what a number or a file comes from, and what came of it."""

import shutil
import sys
import textwrap
from argparse import ArgumentParser
from io import StringIO

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from pipeline.core import options
from pipeline.core.params import Params
from pipeline.core.printable import printable
from pipeline.lineage.trace.branch import Branch
from pipeline.lineage.trace.trace import trace

ENDLESS = 10_000
"""Columns: so that rich never cuts a hash."""
INDENT = 4
"""Columns for each level of a tree."""
HELP = "show what a number or a file comes from and what came of it: images, weights, settings, commit, machine"


def arguments(parser: ArgumentParser) -> None:
    """Add the thing to trace."""
    what = (
        "an image (path, id or the beginning of its sha256), a run, a file, RUN:METRIC or RUN:IMAGE; "
        f"a run is {options.MODEL}"
    )
    parser.add_argument("what", metavar="WHAT", help=what)


def main(params: Params, what: str) -> str:
    """Trace one thing; return the tree."""
    return rendered(trace(params, what), terminal=sys.stdout is not None and sys.stdout.isatty())


def rendered(branch: Branch, *, terminal: bool) -> str:
    """Draw a tree, one line per branch; on a terminal with bold nodes, and wrapped between words."""
    width = max(100, shutil.get_terminal_size().columns) if terminal else ENDLESS
    console = Console(file=StringIO(), width=ENDLESS, force_terminal=terminal, highlight=False)
    with console.capture() as captured:
        console.print(_tree(branch, width))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _tree(branch: Branch, width: int) -> Tree:
    folded = textwrap.fill(printable(branch.text), width, break_long_words=False, break_on_hyphens=False)
    # A name is data: as Text it is never read as markup.
    tree = Tree(Text(folded, style="bold" if branch.branches else "", overflow="ignore"), guide_style="dim")
    for one in branch.branches:
        tree.children.append(_tree(one, max(width - INDENT, INDENT)))
    return tree
