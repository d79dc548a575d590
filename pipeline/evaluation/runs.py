"""A run is one trained head or one fine-tuned plan on one backbone: its files, and how people name it."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core import artifacts, environment, stamps
from pipeline.core.atomic import write_json
from pipeline.core.cost import Cost
from pipeline.core.errors import InputError, RefusedError, StateError, unknown
from pipeline.core.params import Params
from pipeline.core.tables import Table, write_csv
from pipeline.data.manifest import Manifest
from pipeline.evaluation.scoring import breakdown, metrics, predictions
from pipeline.evaluation.scoring.predictions import Floats, Predictions

CHECKPOINTS = Path(".headswap/checkpoints")
"""Where fine-tuning keeps the checkpoints, a folder for each training."""


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, read with its bytes checked."""

    backbone: str
    name: str
    kind: str
    """"head" or "plan"."""
    predictions: Predictions
    cost: Cost
    stamp: stamps.Stamp

    @property
    def id(self) -> str:
        """The name in the verdict and on the command line."""
        return f"{self.backbone}/{self.name}"


@dataclass(frozen=True)
class RunResult:
    """The result of training a head or plan, before it is recorded."""

    predictions: Predictions
    files: Sequence[Path]
    """Of the model."""
    cost: Cost
    scores: Mapping[str, Any] = field(default_factory=dict)
    """For the metrics file, beside the validation metrics."""
    plots: Mapping[str, Table] = field(default_factory=dict)
    """For `dvc plots`, beside those of every run."""


HEADINGS = {"confusion": ("true", "decided"), "calibration": ("confidence", "accuracy", "images")}
"""Of the tables that `dvc plots` draws of every run."""
PLOTS = tuple(artifacts.PLAN_PLOTS)
"""The tables by epoch that `dvc plots` draws of plans."""
Reader = Callable[[Path, stamps.Stamp], Predictions]
"""Reads a file of predictions, checked against a stamp."""
folder, stamp_path, metrics_path = artifacts.MODEL.at, artifacts.MODEL.stamp_at, artifacts.METRICS.at
"""The model, the stamp and the validation metrics of a backbone's head or plan."""


def predictions_of(table: Manifest, row: Iterable[int], probability: Floats) -> Predictions:
    """Return predictions of the images in some rows of the manifest, (n,): probabilities (n, K) in its class order."""
    rows = list(row)
    return Predictions(
        image_id=[table.image_id[one] for one in rows],
        split=[table.split[one] for one in rows],
        label=[table.label[one] for one in rows],
        classes=table.classes,
        probability=probability,
    )


def record(
    backbone: str, name: str, kind: str, made: RunResult, inputs: Mapping[str, str], facts: Mapping[str, Any]
) -> dict[str, float]:
    """Write predictions, validation metrics, plots and stamp of a run whose model is written; return the metrics.

    The metrics file holds nothing that differs between equal runs; seconds and machine are in the stamp.
    """
    validation = made.predictions.of("val")
    found = metrics.score(validation)
    content = {"validation": {**found, **breakdown.score_by_class(validation)}, **made.scores}
    tables = {**_tables(validation), **made.plots}
    size = sum(path.stat().st_size for path in made.files)
    everything = {**facts, "cost": asdict(made.cost), "bytes_on_disk": size}
    _write((backbone, name), kind, made.predictions, content, tables, inputs, everything, made.files)
    return found


def _write(
    run: tuple[str, str], kind: str, predicted: Predictions, scores: Mapping[str, Any], tables: Mapping[str, Table],
    inputs: Mapping[str, str], facts: Mapping[str, Any], model: Sequence[Path] = (),
) -> None:  # fmt: skip
    """Write the files of a run except for its model, the stamp last."""
    path, known = predictions.path_of(*run), {**artifacts.RUN_PLOTS, **artifacts.PLAN_PLOTS}
    predictions.write(path, predicted)
    write_json(metrics_path(*run), scores)
    plots = {known[plot].at(*run): table for plot, table in tables.items()}
    for place, table in plots.items():
        write_csv(place, table)
    outputs = stamps.hashes([*model, path, metrics_path(*run), *plots])
    stage = f"{'train' if kind == 'head' else 'finetune'}@{'-'.join(run)}"
    everything = {**facts, "kind": kind, "made_with": environment.describe()}
    stamps.write(stamp_path(*run), stamps.Stamp(stage, outputs, inputs, everything))


def make_or_record_failure(
    backbone: str, name: str, kind: str, inputs: Mapping[str, str], make: Callable[[], str]
) -> str:
    """Make a run, or record as its result that its settings were refused, so that other runs can be compared.

    The stage `complete` then fails instead of this one. Problems that may not occur again - memory, disk, an
    interrupt - are not recorded; they fail here. `make` makes the run and returns the summary line; `inputs` are the
    files that it is made from, path -> sha256.
    """
    try:
        return make()
    except RefusedError as error:
        reason = error.reason
    shutil.rmtree(folder(backbone, name), ignore_errors=True)  # the model of an earlier run
    nothing, failure = Predictions([], [], [], [], np.empty((0, 0))), {"failed": reason}
    plots = (*artifacts.RUN_PLOTS, *(PLOTS if kind == "plan" else ()))
    tables = {plot: [HEADINGS.get(plot, ("epoch", plot))] for plot in plots}
    _write((backbone, name), kind, nothing, failure, tables, inputs, failure)
    return f"FAILED, and recorded so that the other runs can be compared: {reason}"


def failures(some: Iterable[tuple[str, str]], *, missing_ok: bool = False) -> dict[tuple[str, str], str]:
    """Return the failed ones of some runs, by backbone and name, with their reasons.

    A stamp that cannot be read is a StateError; with `missing_ok` its run is left out, because the audit reports it.
    """
    found = {}
    for run in some:
        with suppress(*[StateError] if missing_ok else ()):
            if (reason := stamps.read(stamp_path(*run)).facts.get("failed")) is not None:
                found[run] = str(reason)
    return found


def _tables(validation: Predictions) -> dict[str, Table]:
    """Return the tables `confusion`, of every image, and `calibration`, of every bin of confidence."""
    decided = [validation.classes[number] for number in validation.decision()]
    images, confidence, right = breakdown.calibration_bins(validation)
    used = [(images[bin_], confidence[bin_] / images[bin_], right[bin_] / images[bin_]) for bin_ in images.nonzero()[0]]
    return {
        "confusion": [HEADINGS["confusion"], *zip(validation.label, decided, strict=True)],
        "calibration": [
            HEADINGS["calibration"],
            *((f"{sure:.6f}", f"{true:.6f}", int(count)) for count, sure, true in used),
        ],
    }


def read(backbone: str, name: str, reader: Reader = predictions.read) -> FinishedRun:
    """Read a run; StateError if it failed, or a file is missing or differs from the stamp."""
    stamp = stamps.read(stamp_path(backbone, name))
    if "failed" in stamp.facts:
        raise StateError(f"{backbone}/{name}: failed: {stamp.facts['failed']}; correct params.yaml and run `dvc repro`")
    found = reader(predictions.path_of(backbone, name), stamp)
    with stamps.requiring_facts(stamp_path(backbone, name)):
        return FinishedRun(backbone, name, stamp.facts["kind"], found, Cost(**stamp.facts["cost"]), stamp)


def read_all(some: Iterable[tuple[str, str]], reader: Reader = predictions.read) -> list[FinishedRun]:
    """Read runs by backbone and name, in order; two at a time, as each may take a gigabyte. Errors as `read`."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda run: read(run[0], run[1], reader), some))


def finished() -> list[str]:
    """Return <backbone>/<name> of every run with a stamp, whether params.yaml lists it or not."""
    return list(map("/".join, artifacts.MODEL.stamps_here().values()))


def match_name(what: str, some: Iterable[str], where: str) -> str | None:
    """Return the <backbone>/<name> among some that a person names in full, by its folder or by the name alone, or None.

    Raises:
        InputError: if there are several; the message begins with `where`.

    """
    path = os.path.relpath(os.path.abspath(what))  # noqa: PTH100  # the path as it was written: links are not followed
    name = "/".join(artifacts.named(path)) if artifacts.MODEL.is_at(path) else what
    matches = [one for one in some if name in (one, one.partition("/")[2])]
    if len(matches) > 1:
        choices = ", ".join(matches)
        raise InputError(f"{where}: got {what!r}, which is on several backbones; expected one of: {choices}")
    return matches[0] if matches else None


def find(what: str, params: Params, where: str, reader: Reader = predictions.read) -> FinishedRun:
    """Read the run that a person names.

    Args:
        what: <backbone>/<name>, its folder, or the name alone if a single backbone of `run`, or a single one at all,
            has a run of that name.
        params: their backbones come first.
        where: the argument, with which error messages begin.
        reader: of its predictions.

    Raises:
        InputError: if there is no such run, or several.
        StateError: as `read`.

    """
    present = finished()
    listed = [one for one in present if one.partition("/")[0] in params.run.backbones]
    match = match_name(what, listed, where) or match_name(what, present, where)
    if match is None:
        none_finished = f"{where}: got {what!r}, but no run is finished; run `dvc repro`"
        raise InputError(unknown(where, what, present) if present else none_finished)
    backbone, _, run = match.partition("/")
    with advice_on_unlisted(params, backbone, run):
        return read(backbone, run, reader)


@contextmanager
def advice_on_unlisted(params: Params, backbone: str, name: str) -> Iterator[None]:
    """Add to a StateError about a run how to list it, if params.yaml does not: otherwise DVC cannot make it again."""
    try:
        yield
    except StateError as error:
        advice = how_to_list(params, backbone, name)
        raise (StateError(*error.problems, advice) if advice and advice not in error.problems else error) from error


def how_to_list(params: Params, backbone: str, name: str) -> str | None:
    """Say what to add to params.yaml so that DVC makes a run; None if it is listed already."""
    section = (
        "heads" if name in params.heads else "plans" if name in params.plans else "heads or run.plans, with an entry"
    )
    missing = [f"{backbone!r} to run.backbones"] if backbone not in params.run.backbones else []
    missing += [f"{name!r} to run.{section}"] if name not in (*params.run.heads, *params.run.plans) else []
    if not missing:
        return None
    return f"{backbone}/{name}: params.yaml does not list it, so add {' and '.join(missing)} before you run `dvc repro`"


def read_metrics(run: FinishedRun) -> dict[str, float]:
    """Read a run's validation metrics, checked against its stamp; StateError if one has been added to METRICS since."""
    path = metrics_path(run.backbone, run.name)
    found = json.loads(stamps.check(path, run.stamp))["validation"]
    if missing := [name for name in metrics.METRICS if name not in found]:
        raise StateError(f"{path}: lacks {', '.join(missing)}; run `dvc repro`")
    return {name: float(found[name]) for name in metrics.METRICS}
