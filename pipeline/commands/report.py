"""report: the verdict in words, and its page in a browser."""

import webbrowser
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.core import stamps
from pipeline.core.errors import StateError
from pipeline.core.params import Params
from pipeline.evaluation import runs
from pipeline.verdict import schema
from pipeline.verdict.wording.answer import terminal_lines

HELP = "say the verdict again, and where its page is"


def arguments(parser: ArgumentParser) -> None:
    """Offer to open the page."""
    parser.add_argument("--open", action="store_true", help="show the page in a browser")


def main(params: Params, *, open: bool) -> str:  # noqa: A002  # the flag's name
    """Return the verdict's sentence and where the page is; show the page if asked to."""
    content = schema.read()
    if not schema.PAGE.is_file():
        raise StateError(f"{schema.PAGE}: missing; run `dvc repro`")
    where = schema.PAGE.resolve()
    if open and not webbrowser.open(where.as_uri()):
        raise StateError(f"no browser was found; open {where} yourself")
    since = "; ".join(_since(content, params))
    told = f" (since then: {since}; run `dvc repro`)" if since else ""
    return terminal_lines(content["sentence"], content["notes"], f"{where}{told}")


def _since(content: Mapping[str, Any], params: Params) -> Iterator[str]:
    """Yield what became of runs since they were judged."""
    judged = {(one["backbone"], one["name"]) for one in content["results"]}
    listed = dict.fromkeys(params.runs())
    made = {run: path for run in listed if (path := runs.stamp_path(*run)).is_file()}
    anew = [run for run, path in made.items() if content["inputs"].get(path.as_posix()) != stamps.sha256_file(path)]
    kinds = {
        "made anew": [run for run in anew if run in judged],
        "not judged yet": [run for run in anew if run not in judged],
        "no longer listed": sorted(judged - listed.keys()),
    }
    yield from (f"{', '.join(map('/'.join, found))} {kind}" for kind, found in kinds.items() if found)
