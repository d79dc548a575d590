"""predict: classify new images with a head or a fine-tuned network."""

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
from pipeline.core.words import counted
from pipeline.serving import files, new_images, prediction_table, trained_model
from pipeline.serving.new_images import NewImages
from pipeline.serving.prediction_table import PredictionTable
from pipeline.serving.trained_model import TrainedModel

HELP = (
    "classify new images with a head or a fine-tuned model: label, probabilities, and which are unlike the "
    "training images"
)


def arguments(parser: ArgumentParser) -> None:
    """Add the model, the images, and the file to write."""
    options.model(parser)
    parser.add_argument("path", nargs="+", metavar="PATH", help="images, or folders of them")
    table = "a table to write: .csv, .json or .parquet; left out, CSV is printed"
    parser.add_argument("--out", metavar="FILE", help=table)


def main(params: Params, model: str, path: Sequence[str], out: str | None = None) -> str:
    """Classify images and write a table; return the summary line, or the table as CSV if no file is named.

    Raises:
        InputError: if a path does not exist, no image can be used, or there is no such model or kind of table.
        StateError: if the model is missing, altered or out of date, or an `embed` is running.

    """
    if out is not None:
        prediction_table.require_table(Path(out), params.data)
    images, ignored = files.images_of(path)
    ready = trained_model.read(params, model)
    new, bad = new_images.embed(images, ready, params)
    lines = [*ignored, *bad]
    if not new.paths:
        raise InputError(*first_five(lines, "images that cannot be used"))
    found = prediction_table.predict(new, ready, params)
    for line in lines:
        _say(f"skipped: {line}")
    summary = _summary(found, len(lines), _passed(new, ready), ready.calibration())
    if out is None:
        _say(summary)
        return prediction_table.as_csv(found.columns()).rstrip("\n")
    prediction_table.write(Path(out), found)
    return f"{out}: {summary}"


def _say(line: str) -> None:
    tqdm.write(printable(line), file=sys.stderr)


def _passed(new: NewImages, ready: TrainedModel) -> str:
    """Say how many images went through which network; a fine-tuned one caches nothing, so all went through it."""
    if ready.network is None:
        return f"{new.computed} went through the CNN"
    return f"{len(set(new.sha256))} went through the fine-tuned CNN, {new.computed} through the frozen one"


def _summary(found: PredictionTable, skipped: int, passed: str, calibration: str) -> str:
    of_labels = ", ".join(f"{label}: {count}" for label, count in Counter(found.label).most_common(10))
    return (
        f"{counted(len(found.path), 'image')}: {of_labels}; {int(found.unlike.sum())} unlike the training images; "
        f"{skipped} skipped; {passed}; probabilities are {calibration}"
    )
