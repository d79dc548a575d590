"""train: embeddings -> a head, its predictions and its validation metrics."""

from dataclasses import asdict

import numpy as np

from pipeline import heads, manifest, runs, stamps
from pipeline.cost import measured
from pipeline.embeddings import matrix
from pipeline.embeddings.matrix import Embeddings
from pipeline.errors import InputError, StateError
from pipeline.evaluation import Predictions
from pipeline.heads import Floats, Ints
from pipeline.manifest import Manifest
from pipeline.params import Params


def main(params: Params, backbone: str, head: str) -> str:
    """Choose and fit the head on the training split, predict validation and test; return the summary line."""
    entry = params.head(head)
    if problems := heads.check(head, entry):
        raise InputError(*problems)
    table, embedded = manifest.read(), matrix.read(backbone)
    rows = _aligned(table, embedded)
    splits = np.array([table.split[row] for row in rows])
    labels = np.array([table.label[row] for row in rows])
    train, judged = np.flatnonzero(splits == "train"), np.flatnonzero(splits != "train")
    features, image = _to_train_on(embedded, train)

    with measured() as cost:
        chosen = heads.fit(head, entry, features, labels[image], params.selection, params.seed, image)
        probability = heads.predict(chosen.model, embedded.features[judged].astype(np.float32))
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
    inputs = {**stamps.read(manifest.STAMP).outputs, **stamps.read(matrix.stamp_path(backbone)).outputs}
    metrics = runs.record(backbone, head, "head", predictions, [path], inputs, cost, facts)
    metric = params.selection.metric
    settings = ", ".join(f"{key}={value}" for key, value in chosen.params.items()) or "defaults"
    return f"{settings}: validation {metric} {metrics[metric]:.3f}, {cost.seconds:.1f} s"


def _to_train_on(embedded: Embeddings, train: Ints) -> tuple[Floats, Ints]:
    """Return the training images' features, those of their further views after them, and the matrix row of each."""
    features = embedded.features[train].astype(np.float32)
    if embedded.augmented is None:
        return features, train
    views = embedded.augmented
    return np.concatenate([features, views.features.astype(np.float32)]), np.concatenate([train, views.row])


def _aligned(table: Manifest, embedded: Embeddings) -> list[int]:
    """Return the manifest row of every matrix row; StateError if the two do not belong together."""
    if embedded.manifest_sha256 != stamps.sha256_file(manifest.MANIFEST):
        raise StateError("the embeddings were made for another manifest; run `dvc repro`")
    row_of = table.row_of()
    return [row_of[image_id] for image_id in embedded.image_id]
