"""`headswap`: a sub-command per stage and per user verb; the only place that words errors for people."""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from types import FrameType

from pipeline import params
from pipeline.errors import CheckFailed, PipelineError
from pipeline.printable import printable


@dataclass(frozen=True)
class Verb:
    """A sub-command: its module's `main(params, **options)` returns the summary line."""

    module: str
    help: str
    options: tuple[str, ...] = ()
    flags: tuple[tuple[str, str], ...] = ()
    words: "Words | None" = None
    counts: tuple[tuple[str, str], ...] = ()
    """Flags that take a number."""


@dataclass(frozen=True)
class Words:
    """What stands behind a verb without a flag."""

    name: str
    help: str
    how_many: str | int | None = None
    """As argparse says it: None for one, which is no list then."""


OPTIONS = {
    "backbone": "a name from `backbones:` in params.yaml",
    "head": "a name from `heads:` in params.yaml",
    "plan": "a name from `plans:` in params.yaml",
}

VERBS = {
    "prepare": Verb("stages.prepare", "stage: hash the images, deal the splits, write data/manifest.parquet"),
    "thumbnails": Verb(
        "stages.thumbnails", "stage: draw small pictures of the images, 3,000 at most, for the report"
    ),
    "embed": Verb(
        "stages.embed",
        "stage: push images the cache does not know through a frozen CNN",
        ("backbone",),
        flags=(("dry-run", "say how many images that would be and how long it would take; compute nothing"),),
    ),
    "train": Verb("stages.train", "stage: fit a head on cached embeddings", ("backbone", "head")),
    "finetune": Verb(
        "stages.finetune",
        "stage: train the last blocks, or all, of a CNN; `torchrun -m pipeline finetune ...` shares the work",
        ("backbone", "plan"),
        flags=(("dry-run", "say what it would store, and how long it would take; compute nothing that is kept"),),
    ),
    "curve": Verb(
        "stages.curve",
        "stage: train heads, and plans if asked for, on parts of the training images: the label-efficiency curve",
        ("backbone",),
        flags=(("dry-run", "say how many trainings that would be, and how long the plans' would take"),),
    ),
    "survey": Verb(
        "stages.survey",
        "stage: score how well the embeddings fit the task before any head is trained, and draw their map",
        ("backbone",),
    ),
    "compare": Verb(
        "stages.compare",
        "stage: score every run on the test split, write the verdict and the report; with two runs named: compare "
        "these here and now, write nothing",
        words=Words("run", "<backbone>/<head or plan>, or just the head or plan", "*"),
    ),
    "report": Verb(
        "commands.report",
        "say the verdict again, and where its page is",
        flags=(("open", "show the page in a browser"),),
    ),
    "audit": Verb(
        "stages.audit",
        "read every byte from images to verdict, dvc.lock and DVC's cache; name all that was altered and exit with 1",
        flags=(
            ("record", "stage: write reports/lineage.json instead, after checking that the stamps agree"),
            ("quick", "check structure and stamps, and read no large file"),
            ("json", "print what was found as JSON"),
        ),
        counts=(("recompute", "also push N random images through the CNN again, and compare with the stored rows"),),
    ),
    "trace": Verb(
        "commands.trace",
        "show what a number or a file comes from and what came of it: images, weights, settings, commit, machine",
        words=Words(
            "what",
            "an image (path, id or the beginning of its sha256), a run, a file, RUN:METRIC or RUN:IMAGE; "
            "a run is <backbone>/<head or plan>, or just the head or plan",
        ),
    ),
    "diff": Verb(
        "commands.diff",
        "say what changed between two commits: images, splits, recipe, heads, results, and which moved for what reason",
        words=Words("revision", "a commit, branch or tag; the working tree if only one is given", "+"),
    ),
    "forget": Verb(
        "commands.forget",
        "take images out of cache and embeddings for good, and list all that still carries them",
        words=Words("image", "its path, id or sha256", "+"),
        flags=(("yes", "do it; without this, only say what would be done"),),
    ),
    "lineage": Verb(
        "commands.lineage",
        "write what dvc.lock says as W3C PROV-JSON or OpenLineage events, for other tools",
        words=Words(
            "target",
            "FORMAT FILE: prov or openlineage, and the file to write; events bear dvc.lock's time: of its commit, or "
            "of its last change where that is not committed",
            2,
        ),
    ),
    "demo": Verb("commands.demo", "lay the demo's 2,624 images out under data/raw/elpv"),
    "cache": Verb(
        "commands.cache",
        "list what the frozen pass has stored; or verify, prune or merge it",
        flags=(
            ("verify", "read every shard, name the damaged ones and exit with 1"),
            ("prune", "say what no commit of this repository needs; remove it with --yes"),
            ("yes", "with --prune: remove"),
            ("ignore-missing", "with --prune: take old manifests that DVC's cache no longer holds as not needed"),
            ("merge", "put small shards together"),
        ),
    ),
    "backbones": Verb("commands.backbones", "list every frozen CNN: width, input size, weights, and if they are here"),
    "doctor": Verb(
        "commands.doctor",
        "check params.yaml, data, weights and versions before anything expensive runs, and what a killed run left",
        flags=(("fix", "mend what a killed run left; no cached row is lost"),),
    ),
}  # fmt: skip


class Interrupted(BaseException):
    """SIGTERM, raised as an exception so that temporary files are removed on the way out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; return the exit status: 0 done, 1 a check found something, 2 unusable input or state."""
    _escape_what_cannot_be_encoded()
    options = vars(_parser().parse_args(arguments))
    name = options.pop("verb")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        verb = importlib.import_module(f"pipeline.{VERBS[name].module}")
        summary = verb.main(params.load(), **options)
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
        if words := verb.words:
            sub.add_argument(words.name, nargs=words.how_many, metavar=words.name.upper(), help=words.help)
        for option in verb.options:
            sub.add_argument(f"--{option}", required=True, metavar=option[0].upper(), help=OPTIONS[option])
        for flag, text in verb.flags:
            sub.add_argument(f"--{flag}", action="store_true", help=text)
        for flag, text in verb.counts:
            sub.add_argument(f"--{flag}", type=int, metavar="N", default=0, help=text)
    return parser
