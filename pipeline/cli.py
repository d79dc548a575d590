"""`headswap`: a sub-command per stage and per user verb; the only place that words errors for people."""

import argparse
import importlib
import signal
import sys
import warnings
from collections.abc import Collection, Sequence
from io import TextIOWrapper
from types import FrameType

from pipeline.core import params
from pipeline.core.errors import CheckFailed, PipelineError
from pipeline.core.printable import printable
from pipeline.verbs import OPTIONS, VERBS


class Interrupted(BaseException):
    """SIGTERM, raised as an exception so that temporary files are removed on the way out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; return the exit status: 0 done, 1 a check found something, 2 unusable input or state."""
    _escape_what_cannot_be_encoded()
    options = vars(_parser().parse_args(arguments))
    name = options.pop("verb")
    signal.signal(signal.SIGTERM, _interrupt)
    # Pillow warns of much that pipeline.data.images refuses or defines. Set once: the filters are the whole process's,
    # and threads that changed them while they decode would leave them changed for good.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        verb = importlib.import_module(f"pipeline.{VERBS[name].module}")
        summary = verb.main(params.load(known=_known, asked=options), **options)
    except CheckFailed as finding:
        if finding.printed:
            print(finding.printed)  # noqa: T201
        return _complain(name, finding.problems, status=1)
    except PipelineError as error:
        return _complain(name, error.problems)
    except OSError as error:
        return _complain(name, [f"{error.filename or 'input or output'}: {error.strerror or error}"])
    except (KeyboardInterrupt, Interrupted):
        print(f"headswap {name}: interrupted; what was finished is kept", file=sys.stderr)  # noqa: T201
        return 130
    print(summary if "\n" in summary else printable(f"{name}: {summary}"))  # noqa: T201  # a table or a tree speaks for itself
    return 0


def _known(section: str) -> Collection[str]:
    """Return the names that need no more than an empty entry under a section of params.yaml."""
    where = {"backbones": ("pipeline.networks.backbones", "BACKBONES"), "heads": ("pipeline.heads", "HEADS")}
    if section not in where:
        return ()
    module, catalogue = where[section]
    return frozenset(getattr(importlib.import_module(module), catalogue))  # of backbones it takes seconds: torch


def _complain(name: str, problems: Sequence[str], status: int = 2) -> int:
    for problem in problems:
        print(printable(f"headswap {name}: {problem}"), file=sys.stderr)  # noqa: T201
    return status


def _escape_what_cannot_be_encoded() -> None:
    """Print a name that the terminal's encoding lacks with escapes, instead of ending in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise Interrupted


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headswap",
        description="One frozen pass over your images, then swap heads at will. `dvc repro` runs the stages; "
        "params.yaml says which.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for name, verb in VERBS.items():
        sub = verbs.add_parser(name, help=verb.help, description=verb.help)
        for words in verb.words:
            sub.add_argument(words.name, nargs=words.how_many, metavar=words.name.upper(), help=words.help)
        for option in verb.options:
            sub.add_argument(f"--{option}", required=True, metavar=option[0].upper(), help=OPTIONS[option])
        for flag, text in verb.flags:
            sub.add_argument(f"--{flag}", action="store_true", help=text)
        for flag, text in verb.counts:
            sub.add_argument(f"--{flag}", type=int, metavar="N", default=0, help=text)
        for one in verb.texts:
            sub.add_argument(f"--{one.name}", required=one.required, metavar=one.metavar, help=one.help)
    return parser
