"""survey: manifest + embeddings -> what the embeddings alone say, before any head is trained."""

from argparse import ArgumentParser

import numpy as np
from tqdm import tqdm

from pipeline.core import options
from pipeline.core.params import Params
from pipeline.evaluation import projection, surveys, transferability
from pipeline.evaluation.surveys import Survey
from pipeline.evaluation.transferability import Transferability
from pipeline.heads import inputs
from pipeline.heads.inputs import HeadInputs
from pipeline.heads.types import chosen_rows

MOST = 20_000
"""Training images to score: their similarities, n x n, decide the time."""
HELP = "stage: score how well the embeddings fit the task before any head is trained, and draw their map"


def arguments(parser: ArgumentParser) -> None:
    """Ask for a backbone."""
    options.entries(parser, "backbone")


def main(params: Params, backbone: str) -> str:
    """Score how well the embeddings fit the task and draw their map; return the summary line."""
    given = inputs.read(params, backbone, streams=True)
    with tqdm(total=2, desc="survey", unit="step", disable=None) as bar:
        bar.set_postfix_str("scores")
        scores = _scores(given, params.seed)
        bar.update()
        bar.set_postfix_str("map")
        images = chosen_rows(given.images.X, np.arange(len(given.row)))
        position = projection.project(images, params.seed)
        bar.update()
    image_id = [given.table.image_id[row] for row in given.row]
    surveys.write(backbone, Survey(image_id, position, scores), inputs.made_from(backbone))
    return (
        f"{len(image_id):,} images mapped; nearest neighbours find the class of {scores.knn_accuracy:.1%} of "
        f"{scores.images:,} training images (the largest class is {scores.largest_class:.1%}), "
        f"LogME {scores.logme:.3f}, H-score {scores.h_score:.2f}"
    )


def _scores(given: HeadInputs, seed: int) -> Transferability:
    """Score training images in a drawn order, so that ties between similar ones favour no class."""
    drawn = np.random.default_rng(seed).permutation(given.train)[:MOST]
    features = chosen_rows(given.images.X, drawn)[:]  # read: a slice of stored rows is an array
    targets = np.unique(given.images.y[drawn], return_inverse=True)[1]
    # Images of one group, or copies of one image, would find each other.
    together = [given.images.group[row] or given.table.sha256[given.row[row]] for row in drawn]
    return transferability.score(features, targets, len(given.train), np.unique(together, return_inverse=True)[1])
