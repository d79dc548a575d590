"""report: the verdict in words, and its page in a browser."""

import webbrowser

from pipeline import concerns, verdict
from pipeline.errors import StateError
from pipeline.params import Params


def main(_params: Params, *, open: bool) -> str:  # noqa: A002  # the flag's name
    """Return the verdict's sentence and where the page is; show the page if asked to."""
    content = verdict.read()
    if not verdict.PAGE.is_file():
        raise StateError(f"{verdict.PAGE}: missing; run `dvc repro`")
    where = verdict.PAGE.resolve()
    if open and not webbrowser.open(where.as_uri()):
        raise StateError(f"no browser was found; open {where} yourself")
    return concerns.summary(content["sentence"], content["notes"], where)
