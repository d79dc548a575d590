"""train: embeddings -> a head, its predictions and its validation metrics."""

from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from pipeline import heads
from pipeline.core import options, stamps
from pipeline.core.cost import measured, typical_seconds
from pipeline.core.errors import RefusedError
from pipeline.core.params import Params
from pipeline.core.sections import HeadEntry
from pipeline.data import manifest
from pipeline.embeddings import matrix
from pipeline.evaluation import runs
from pipeline.evaluation.scoring.predictions import Predictions
from pipeline.heads import inputs
from pipeline.heads.metering import Metered
from pipeline.heads.types import Classifier, Features

HELP = "stage: fit a head on cached embeddings"


def arguments(parser: ArgumentParser) -> None:
    """Ask for a backbone and a head."""
    options.entries(parser, "backbone", "head")


def main(params: Params, backbone: str, head: str) -> str:
    """Choose and fit the head on the training split, predict validation and test; return the summary line."""
    entry = params.head(head)
    made_from = {**stamps.read(manifest.STAMP).outputs, **stamps.read(matrix.stamp_path(backbone)).outputs}
    return runs.attempted(backbone, head, "head", made_from, lambda: _made(params, backbone, head, entry, made_from))


def _made(params: Params, backbone: str, head: str, entry: HeadEntry, made_from: Mapping[str, str]) -> str:
    if problems := heads.check(head, entry):
        raise RefusedError(*problems)
    given = inputs.read(params, backbone, streams=heads.streams(head, entry))
    images, judged = given.images, np.concatenate([given.val, given.test])

    with inputs.cluster(params, backbone) as engine, measured() as own:
        cluster = Metered(engine)
        train = given.to_train_on(given.train)
        chosen = heads.fit(head, entry, train, images[given.val], params.selection, params.seed, cluster=cluster)
        tested = heads.predict(chosen.model, images[given.test].X)
    cost = cluster.added_to(own)
    predictions = Predictions(
        image_id=[given.table.image_id[row] for row in given.row[judged]],
        split=[given.table.split[row] for row in given.row[judged]],
        label=images.y[judged].tolist(),
        classes=given.table.classes,
        probability=np.concatenate([chosen.validation, tested]),
    )
    files = heads.save(runs.folder(backbone, head), chosen.model)
    facts = {
        "params": dict(chosen.params),
        "candidates": [asdict(candidate) for candidate in chosen.candidates],
        "unconverged_fits": chosen.unconverged,
        "warnings": list(chosen.warned),
        "notes": list(chosen.notes),
        "seed": params.seed,
        "device": "cpu",
        "prediction": _prediction(chosen.model, images[given.test].X),
    }
    scores = {key: value for key in ("calibration", "repeated") if (value := getattr(chosen, key))}
    made = runs.Made(predictions, files, cost, scores)
    metrics = runs.record(backbone, head, "head", made, made_from, facts)
    metric = params.selection.metric
    settings = ", ".join(f"{key}={value}" for key, value in chosen.params.items()) or "defaults"
    return f"{settings}: validation {metric} {metrics[metric]:.3f}, {cost.seconds:.1f} s"


def _prediction(model: Classifier, X: Features) -> dict[str, Any]:
    """Return how long the head alone takes; the frozen pass before it is known elsewhere."""
    seconds = typical_seconds(lambda: heads.predict(model, X))
    return {"seconds_per_1000": 1000 * seconds / len(X), "images": len(X), "runtime": "scikit-learn"}
