"""`headswap`: each verb declares its own arguments; this is the only place that words errors for people."""

import ast
import importlib
import signal
import sys
import warnings
from argparse import ArgumentParser
from collections.abc import Collection, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.core import options
from pipeline.core.errors import CheckFailed, PipelineError, unknown
from pipeline.core.printable import printable
from pipeline.core.verbs import VERBS, file_of


class Interrupted(BaseException):
    """SIGTERM, raised as an exception so that temporary files are removed on the way out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status: 0 done, 1 a check found something, 2 unusable input or state."""
    _escape_what_cannot_be_encoded()
    given = sys.argv[1:] if arguments is None else arguments
    name = next((word for word in given if not word.startswith("-")), "")
    if name and name not in VERBS:
        return _complain("headswap", [unknown("command", name, VERBS)])
    signal.signal(signal.SIGTERM, _interrupt)
    # Pillow warns of much that pipeline.data.images refuses or defines. Set once: the filters are the whole process's,
    # and threads that changed them while they decode would leave them changed for good.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        summary = _run(given)
    except CheckFailed as finding:
        if finding.printed:
            print(finding.printed)  # noqa: T201
        return _complain(f"headswap {name}", finding.problems, status=1)
    except PipelineError as error:
        return _complain(f"headswap {name}", error.problems)
    except OSError as error:
        return _complain(f"headswap {name}", [f"{error.filename or 'input or output'}: {error.strerror or error}"])
    except (KeyboardInterrupt, Interrupted):
        print(f"headswap {name}: interrupted; what was finished is kept", file=sys.stderr)  # noqa: T201
        return 130
    print(summary if "\n" in summary else printable(f"{name}: {summary}"))  # noqa: T201  # a table or a tree speaks for itself
    return 0


def _run(given: Sequence[str]) -> str:
    """Do what is asked for; return the summary."""
    asked = vars(parser().parse_args(given))
    verb = file_of(asked.pop("verb"))
    from pipeline.core import params  # noqa: PLC0415  # not for help

    loaded = params.load(known=_known, asked=asked, check_heads=_problems_of_heads)
    summary: str = importlib.import_module(f"pipeline.{verb.parent.name}.{verb.stem}").main(loaded, **asked)
    return summary


def parser() -> ArgumentParser:
    """Return the parser of all verbs."""
    made = ArgumentParser(
        prog="headswap",
        description="One frozen pass over your images, then swap heads at will. `dvc repro` runs the stages; "
        "params.yaml says which.",
    )
    verbs = made.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for name in VERBS:
        declared = _declared(file_of(name))
        verb = verbs.add_parser(name, help=declared["HELP"], description=declared["HELP"])
        if "arguments" in declared:
            declared["arguments"](verb)
    return made


def _declared(file: Path) -> dict[str, Any]:
    """Return a verb's HELP and `arguments` without the rest of its module, whose imports may take seconds."""
    tree = ast.parse(file.read_bytes())
    tree.body = [node for node in tree.body if _declares(node)]
    declared: dict[str, Any] = {"ArgumentParser": ArgumentParser, "options": options}
    exec(compile(tree, file, "exec"), declared)  # noqa: S102  # a module of this package, as an import would do
    return declared


def _declares(node: ast.stmt) -> bool:
    match node:
        case ast.Assign(targets=[ast.Name(id="HELP")]) | ast.FunctionDef(name="arguments"):
            return True
    return False


def _known(section: str) -> Collection[str]:
    """Return the names that need no more than an empty entry under a section of params.yaml."""
    where = {"backbones": ("pipeline.networks.backbones", "BACKBONES"), "heads": ("pipeline.heads", "HEADS")}
    if section not in where:
        return ()
    module, catalogue = where[section]
    return frozenset(getattr(importlib.import_module(module), catalogue))  # of backbones it takes seconds: torch


def _problems_of_heads(catalogue: Mapping[str, Any], of_curve: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with heads, one line per problem; it takes seconds, for some load torch."""
    from pipeline import heads  # noqa: PLC0415  # only where params.yaml is wrong
    from pipeline.heads import curve  # noqa: PLC0415

    return [*(line for name, entry in catalogue.items() for line in heads.check(name, entry)), *curve.check(of_curve)]


def _complain(who: str, problems: Sequence[str], status: int = 2) -> int:
    for problem in problems:
        print(printable(f"{who}: {problem}"), file=sys.stderr)  # noqa: T201
    return status


def _escape_what_cannot_be_encoded() -> None:
    """Print a name that the terminal's encoding lacks with escapes, instead of ending in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise Interrupted
