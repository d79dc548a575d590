"""A run is one trained head or one fine-tuned plan on one backbone: what it leaves, and where."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import environment, evaluation, stamps
from pipeline.atomic import write_json
from pipeline.cost import Cost
from pipeline.errors import StateError
from pipeline.evaluation import Predictions


@dataclass(frozen=True)
class Run:
    """A finished run, read back with its bytes checked."""

    backbone: str
    name: str
    kind: str
    """"head" or "plan"."""
    predictions: Predictions
    cost: Cost
    stamp: stamps.Stamp


def folder(backbone: str, name: str) -> Path:
    """Return the folder of a run's model."""
    return Path("models") / backbone / name


def stamp_path(backbone: str, name: str) -> Path:
    """Return where a run's stamp lies."""
    return folder(backbone, name) / "run.json"


def metrics_path(backbone: str, name: str) -> Path:
    """Return where a run's validation metrics lie."""
    return Path("metrics") / backbone / f"{name}.json"


def record(
    backbone: str,
    name: str,
    kind: str,
    predictions: Predictions,
    model_files: Sequence[Path],
    inputs: Mapping[str, str],
    cost: Cost,
    facts: Mapping[str, Any],
) -> dict[str, float]:
    """Write predictions, validation metrics and the stamp of a run whose model is written; return the metrics.

    The metrics file holds nothing that differs between equal runs; seconds and machine stand in the stamp.
    """
    path = evaluation.path_of(backbone, name)
    evaluation.write(path, predictions)
    metrics = evaluation.score(predictions.of("val"))
    write_json(metrics_path(backbone, name), {"validation": metrics})
    outputs = stamps.hashes([*model_files, path, metrics_path(backbone, name)])
    everything = {**facts, "kind": kind, "cost": asdict(cost), "made_with": environment.describe()}
    stage = f"{'train' if kind == 'head' else 'finetune'}@{backbone}-{name}"
    stamps.write(stamp_path(backbone, name), stamps.Stamp(stage, outputs, inputs, everything))
    return metrics


def read(backbone: str, name: str) -> Run:
    """Read a run; StateError if a part is missing or has other bytes than the stamp says."""
    stamp = stamps.read(stamp_path(backbone, name))
    predictions = evaluation.read(evaluation.path_of(backbone, name), stamp)
    try:
        return Run(backbone, name, stamp.facts["kind"], predictions, Cost(**stamp.facts["cost"]), stamp)
    except (KeyError, TypeError) as error:
        raise StateError(f"{stamp_path(backbone, name)}: lacks {error}; run `dvc repro --force`") from error


def read_metrics(run: Run) -> dict[str, float]:
    """Read a run's validation metrics, checked against its stamp."""
    content: dict[str, dict[str, float]] = json.loads(stamps.check(metrics_path(run.backbone, run.name), run.stamp))
    return content["validation"]
