"""predict: what a head or a fine-tuned network says of images that no stage has seen."""

import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from pipeline.core import options
from pipeline.core.errors import InputError, first_five
from pipeline.core.params import Params
from pipeline.core.printable import printable
from pipeline.serving import answers, embedded, files, trained
from pipeline.serving.answers import Answers
from pipeline.serving.embedded import New
from pipeline.serving.trained import Trained

HELP = (
    "classify new images with a head or a fine-tuned model: label, probabilities, and which are unlike the "
    "training images"
)


def arguments(parser: ArgumentParser) -> None:
    """Ask for a model and images; offer to write a file."""
    options.model(parser)
    parser.add_argument("path", nargs="+", metavar="PATH", help="images, or folders of them")
    table = "a table to write: .csv, .json or .parquet; left out, CSV is printed"
    parser.add_argument("--out", metavar="FILE", help=table)


def main(params: Params, model: str, path: Sequence[str], out: str | None = None) -> str:
    """Classify images and write a table; return the summary line, or the table as CSV if no file is named.

    Raises:
        InputError: if a path leads nowhere, no image can be used, or there is no such model or kind of table.
        StateError: if the model is missing, altered or out of date, or an `embed` is at work.

    """
    if out is not None:
        answers.require_table(Path(out), params.data)
    images, passed_over = files.images_of(path)
    ready = trained.read(params, model)
    new, bad = embedded.embed(images, ready, params)
    lines = [*passed_over, *bad]
    if not new.paths:
        raise InputError(*first_five(lines, "images that cannot be used"))
    found = answers.answers(new, ready, params)
    for line in lines:
        _say(f"skipped: {line}")
    summary = _summary(found, len(lines), _passed(new, ready), ready.calibration())
    if out is None:
        _say(summary)
        return answers.as_csv(found.columns()).rstrip("\n")
    answers.write(Path(out), found)
    return f"{out}: {summary}"


def _say(line: str) -> None:
    tqdm.write(printable(line), file=sys.stderr)


def _passed(new: New, ready: Trained) -> str:
    """Say which networks computed anything; a fine-tuned one keeps nothing, so that every image goes through it."""
    if ready.network is None:
        return f"{new.computed} went through the CNN"
    return f"{len(set(new.sha256))} went through the fine-tuned CNN, {new.computed} through the frozen one"


def _summary(found: Answers, skipped: int, passed: str, calibration: str) -> str:
    counted = ", ".join(f"{label}: {count}" for label, count in Counter(found.label).most_common(10))
    return (
        f"{len(found.path)} images: {counted}; {int(found.unlike.sum())} unlike the training images; "
        f"{skipped} skipped; {passed}; probabilities are {calibration}"
    )
