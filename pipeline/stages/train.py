"""train: embeddings -> a head, its predictions and its validation metrics."""

from argparse import ArgumentParser
from functools import partial

import numpy as np

from pipeline import heads
from pipeline.core import options
from pipeline.core.cost import measured
from pipeline.core.errors import RefusedError
from pipeline.core.params import Params
from pipeline.core.sections import HeadEntry
from pipeline.evaluation import runs
from pipeline.heads import inputs, predicting
from pipeline.heads.metering import MeteredCluster

HELP = "stage: fit a head on cached embeddings"


def arguments(parser: ArgumentParser) -> None:
    """Ask for a backbone and a head."""
    options.entries(parser, "backbone", "head")


def main(params: Params, backbone: str, head: str) -> str:
    """Choose and fit the head on the training split, predict validation and test; return the summary line."""
    make = partial(_train, params, backbone, head, params.head(head))
    return runs.make_or_record_failure(backbone, head, "head", inputs.made_from(backbone), make)


def _train(params: Params, backbone: str, head: str, entry: HeadEntry) -> str:
    if problems := heads.check(head, entry):
        raise RefusedError(*problems)
    given = inputs.read(params, backbone, streams=heads.streams(head, entry))
    images = given.images
    with inputs.cluster(params, backbone) as engine, measured() as own:
        cluster = MeteredCluster(engine)
        train, test = given.training_rows(given.train), images[given.test].X
        chosen = heads.fit(head, entry, train, images[given.val], params.selection, params.seed, cluster=cluster)
        tested = heads.predict(chosen.model, test)
    judged, probability = np.concatenate([given.val, given.test]), np.concatenate([chosen.validation, tested])
    made = runs.RunResult(
        runs.predictions_of(given.table, given.row[judged], probability),
        heads.save(runs.folder(backbone, head), chosen.model),
        cluster.total_with(own),
        chosen.scores(),
    )
    timing = predicting.prediction_time(chosen.model, test)
    facts = {**chosen.facts(), "seed": params.seed, "device": "cpu", "prediction": timing}
    score = runs.record(backbone, head, "head", made, inputs.made_from(backbone), facts)[params.selection.metric]
    settings = ", ".join(f"{key}={value}" for key, value in chosen.params.items()) or "defaults"
    return f"{settings}: validation {params.selection.metric} {score:.3f}, {made.cost.seconds:.1f} s"
