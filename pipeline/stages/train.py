"""train: embeddings -> a head, its predictions and its validation metrics."""

from argparse import ArgumentParser
from functools import partial

import numpy as np

from pipeline import heads
from pipeline.core import options
from pipeline.core.cost import measured
from pipeline.core.errors import RefusedError
from pipeline.core.params import Params
from pipeline.evaluation import runs
from pipeline.heads import inputs, predicting
from pipeline.heads.metering import Metered

HELP = "stage: fit a head on cached embeddings"


def arguments(parser: ArgumentParser) -> None:
    """Ask for a backbone and a head."""
    options.entries(parser, "backbone", "head")


def main(params: Params, backbone: str, head: str) -> str:
    """Choose and fit the head on the training split, predict validation and test; return the summary line."""
    return runs.attempted(backbone, head, "head", inputs.made_from(backbone), partial(_train, params, backbone, head))


def _train(params: Params, backbone: str, head: str) -> str:
    entry = params.head(head)
    if problems := heads.check(head, entry):
        raise RefusedError(*problems)
    given = inputs.read(params, backbone, streams=heads.streams(head, entry))
    images = given.images
    with inputs.cluster(params, backbone) as engine, measured() as own:
        cluster = Metered(engine)
        train, test = given.to_train_on(given.train), images[given.test].X
        chosen = heads.fit(head, entry, train, images[given.val], params.selection, params.seed, cluster=cluster)
        tested = heads.predict(chosen.model, test)
    judged, probability = np.concatenate([given.val, given.test]), np.concatenate([chosen.validation, tested])
    made = runs.Made(
        runs.predictions_of(given.table, given.row[judged], probability),
        heads.save(runs.folder(backbone, head), chosen.model),
        cluster.added_to(own),
        chosen.scores(),
    )
    timed = predicting.timed(chosen.model, test)
    facts = {**chosen.facts(), "seed": params.seed, "device": "cpu", "prediction": timed}
    score = runs.record(backbone, head, "head", made, inputs.made_from(backbone), facts)[params.selection.metric]
    settings = ", ".join(f"{key}={value}" for key, value in chosen.params.items()) or "defaults"
    return f"{settings}: validation {params.selection.metric} {score:.3f}, {made.cost.seconds:.1f} s"
