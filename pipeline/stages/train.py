"""train: embeddings -> a head, its predictions and its validation metrics."""

from dataclasses import asdict

import numpy as np

from pipeline import embeddings, heads, manifest, runs, stamps
from pipeline.cost import measured
from pipeline.embeddings import Embeddings
from pipeline.errors import InputError, StateError
from pipeline.evaluation import Predictions
from pipeline.manifest import Manifest
from pipeline.params import Params


def main(params: Params, backbone: str, head: str) -> str:
    """Choose and fit the head on the training split, predict validation and test; return the summary line."""
    entry = params.head(head)
    if problems := heads.check(head, entry):
        raise InputError(*problems)
    table, matrix = manifest.read(), embeddings.read(backbone)
    rows = _aligned(table, matrix)
    splits = np.array([table.split[row] for row in rows])
    labels = np.array([table.label[row] for row in rows])
    train, judged = np.flatnonzero(splits == "train"), np.flatnonzero(splits != "train")
    features = matrix.features.astype(np.float32)

    with measured() as cost:
        chosen = heads.fit(head, entry, features[train], labels[train], params.selection, params.seed)
        probability = heads.predict(chosen.model, features[judged])
    predictions = Predictions(
        image_id=[table.image_id[rows[row]] for row in judged],
        split=splits[judged].tolist(),
        label=labels[judged].tolist(),
        classes=table.classes,
        probability=probability,
    )
    path = runs.folder(backbone, head) / "model.skops"
    heads.save(path, chosen.model)
    facts = {
        "params": dict(chosen.params),
        "candidates": [asdict(candidate) for candidate in chosen.candidates],
        "unconverged_fits": chosen.unconverged,
        "seed": params.seed,
    }
    inputs = {**stamps.read(manifest.STAMP).outputs, **stamps.read(embeddings.stamp_path(backbone)).outputs}
    metrics = runs.record(backbone, head, "head", predictions, [path], inputs, cost, facts)
    metric = params.selection.metric
    settings = ", ".join(f"{key}={value}" for key, value in chosen.params.items()) or "defaults"
    return f"{settings}: validation {metric} {metrics[metric]:.3f}, {cost.seconds:.1f} s"


def _aligned(table: Manifest, matrix: Embeddings) -> list[int]:
    """Return the manifest row of every matrix row; StateError if the two do not belong together."""
    if matrix.manifest_sha256 != stamps.sha256_file(manifest.MANIFEST):
        raise StateError("the embeddings were made for another manifest; run `dvc repro`")
    row_of = table.row_of()
    return [row_of[image_id] for image_id in matrix.image_id]
