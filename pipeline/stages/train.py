"""train: embeddings -> a head, its predictions and its validation metrics."""

from dataclasses import asdict

import numpy as np

from pipeline import heads, manifest, runs, stamps
from pipeline.cost import measured
from pipeline.embeddings import matrix
from pipeline.embeddings.matrix import Embeddings
from pipeline.embeddings.stored import Stored
from pipeline.errors import InputError, StateError
from pipeline.evaluation.predictions import Predictions
from pipeline.heads import Rows
from pipeline.heads.types import Features, Ints, chosen_rows
from pipeline.manifest import Manifest
from pipeline.params import Params


def main(params: Params, backbone: str, head: str) -> str:
    """Choose and fit the head on the training split, predict validation and test; return the summary line."""
    entry = params.head(head)
    if problems := heads.check(head, entry):
        raise InputError(*problems)
    table, embedded = manifest.read(), matrix.read(backbone)
    _require_recipe(embedded, backbone, params)
    rows = _aligned(table, embedded)
    splits = np.array([table.split[row] for row in rows])
    train, val, test = (np.flatnonzero(splits == split) for split in manifest.SPLITS)
    whole = _features(embedded, streams=heads.streams(head, entry))
    about = heads.Rows(
        X=whole,
        y=np.array([table.label[row] for row in rows]),
        image=np.arange(len(rows)),
        group=np.array([table.group[row] or "" for row in rows]),
    )

    with measured() as cost:
        chosen = heads.fit(head, entry, _to_train_on(embedded, about, train), about[val], params.selection, params.seed)
        tested = heads.predict(chosen.model, about[test].X)
    judged = np.concatenate([val, test])
    predictions = Predictions(
        image_id=[table.image_id[rows[row]] for row in judged],
        split=splits[judged].tolist(),
        label=about.y[judged].tolist(),
        classes=table.classes,
        probability=np.concatenate([chosen.validation, tested]),
    )
    files = heads.save(runs.folder(backbone, head), chosen.model)
    facts = {
        "params": dict(chosen.params),
        "candidates": [asdict(candidate) for candidate in chosen.candidates],
        "unconverged_fits": chosen.unconverged,
        "warnings": list(chosen.warned),
        "seed": params.seed,
    }
    inputs = {**stamps.read(manifest.STAMP).outputs, **stamps.read(matrix.stamp_path(backbone)).outputs}
    scores = {key: value for key in ("calibration", "repeated") if (value := getattr(chosen, key))}
    made = runs.Made(predictions, files, cost, scores)
    metrics = runs.record(backbone, head, "head", made, inputs, facts)
    metric = params.selection.metric
    settings = ", ".join(f"{key}={value}" for key, value in chosen.params.items()) or "defaults"
    return f"{settings}: validation {metric} {metrics[metric]:.3f}, {cost.seconds:.1f} s"


def _require_recipe(embedded: Embeddings, backbone: str, params: Params) -> None:
    """Raise StateError if the embeddings were made by other settings than params.yaml states now."""
    entry, settings = params.backbone(backbone), params.embed
    stated = {
        "backbone": entry.kind or backbone,
        "weights_sha256": entry.sha256,
        "layers": list(entry.layers) or None,
        "pooling": list(entry.pooling),
        "image_size": entry.image_size,
        "crop": entry.crop,
        "scaled_jpeg": settings.scaled_jpeg,
        "dtype": settings.dtype,
    }
    differing = [
        f"{matrix.matrix_path(backbone)}: {key}: got {embedded.recipe.get(key)!r}, "
        f"expected {value!r} as in params.yaml; run `dvc repro`"
        for key, value in stated.items()
        if value is not None and embedded.recipe.get(key) != value
    ]
    if differing:
        raise StateError(*differing)


def _features(embedded: Embeddings, *, streams: bool) -> Features:
    """Return the features of all images, then of all further views: unread if the head reads them block by block."""
    parts = [embedded.features, *([embedded.augmented.features] if embedded.augmented else [])]
    if streams:
        return Stored(parts, np.arange(sum(map(len, parts))))
    return np.concatenate([part.astype(np.float32) for part in parts])


def _to_train_on(embedded: Embeddings, about: Rows, train: Ints) -> Rows:
    """Return the training images, and after them their further views, which lie below all images in `about.X`."""
    if embedded.augmented is None:
        return about[train]
    views, images = embedded.augmented.row, len(embedded.features)
    rows, image = np.concatenate([train, images + np.arange(len(views))]), np.concatenate([train, views])
    return Rows(chosen_rows(about.X, rows), about.y[image], image, about.group[image])


def _aligned(table: Manifest, embedded: Embeddings) -> list[int]:
    """Return the manifest row of every matrix row; StateError if the two do not belong together."""
    if embedded.manifest_sha256 != stamps.sha256_file(manifest.MANIFEST):
        raise StateError("the embeddings were made for another manifest; run `dvc repro`")
    row_of = table.row_of()
    return [row_of[image_id] for image_id in embedded.image_id]
