"""A run is one trained head or one fine-tuned plan on one backbone: what it leaves, and where."""

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
from pipeline.evaluation.scoring import metrics, predictions
from pipeline.evaluation.scoring.predictions import Floats, Predictions

CHECKPOINTS = Path(".headswap/checkpoints")
"""Where fine-tuning keeps what an interrupted training goes on from, a folder each."""


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

    @property
    def id(self) -> str:
        """What verdict and users call it."""
        return f"{self.backbone}/{self.name}"


@dataclass(frozen=True)
class Made:
    """What a stage has made of a head or plan."""

    predictions: Predictions
    files: Sequence[Path]
    """Of the model."""
    cost: Cost
    scores: Mapping[str, Any] = field(default_factory=dict)
    """To stand in the metrics file beside those of validation."""
    plots: Mapping[str, Table] = field(default_factory=dict)
    """For DVC to draw, beside those that every run has."""


HEADINGS = {"confusion": ("true", "decided"), "calibration": ("confidence", "accuracy", "images")}
"""Of the tables that DVC draws of every run."""
PLOTS = tuple(artifacts.PLAN_PLOTS)
"""Those by epoch that DVC draws of plans."""
Reader = Callable[[Path, stamps.Stamp], Predictions]
"""Reads the file of predictions that a stamp speaks of."""
folder, stamp_path, metrics_path = artifacts.MODEL.at, artifacts.MODEL.stamp_at, artifacts.METRICS.at
"""Of a backbone's head or plan: its model, its stamp, and its validation metrics."""


def predictions_of(table: Manifest, row: Iterable[int], probability: Floats) -> Predictions:
    """Return what a run predicts of some images.

    Args:
        table: the manifest.
        row: (n,) the images' rows in it, of validation and test.
        probability: (n, K), of the manifest's classes in their order.

    """
    rows = list(row)
    return Predictions(
        image_id=[table.image_id[one] for one in rows],
        split=[table.split[one] for one in rows],
        label=[table.label[one] for one in rows],
        classes=table.classes,
        probability=probability,
    )


def record(
    backbone: str, name: str, kind: str, made: Made, inputs: Mapping[str, str], facts: Mapping[str, Any]
) -> dict[str, float]:
    """Write predictions, validation metrics, plots and the stamp of a run whose model is written; return the metrics.

    The metrics file holds nothing that differs between equal runs; seconds and machine stand in the stamp.
    """
    validation = made.predictions.of("val")
    found = metrics.score(validation)
    content = {"validation": {**found, **metrics.score_by_class(validation)}, **made.scores}
    tables = {**_tables(validation), **made.plots}
    size = sum(path.stat().st_size for path in made.files)
    everything = {**facts, "cost": asdict(made.cost), "bytes_on_disk": size}
    _write((backbone, name), kind, made.predictions, content, tables, inputs, everything, made.files)
    return found


def _write(
    run: tuple[str, str], kind: str, predicted: Predictions, scores: Mapping[str, Any], tables: Mapping[str, Table],
    inputs: Mapping[str, str], facts: Mapping[str, Any], model: Sequence[Path] = (),
) -> None:  # fmt: skip
    """Write all that a run leaves but its model, the stamp last."""
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


def attempted(backbone: str, name: str, kind: str, inputs: Mapping[str, str], make: Callable[[], str]) -> str:
    """Make a run; where its settings are refused, record that as the result, so that the others can be judged.

    The stage `complete` then fails in its stead. What may go well another time - memory, disk, an interrupt - is no
    result, and fails here.

    Args:
        backbone: its backbone.
        name: of the head or plan.
        kind: "head" or "plan".
        inputs: path -> sha256 of what it would have been made from.
        make: makes it, and returns the summary line.

    """
    try:
        return make()
    except RefusedError as error:
        reason = error.reason
    shutil.rmtree(folder(backbone, name), ignore_errors=True)  # what an earlier one left
    nothing, failure = Predictions([], [], [], [], np.empty((0, 0))), {"failed": reason}
    plots = (*artifacts.RUN_PLOTS, *(PLOTS if kind == "plan" else ()))
    tables = {plot: [HEADINGS.get(plot, ("epoch", plot))] for plot in plots}
    _write((backbone, name), kind, nothing, failure, tables, inputs, failure)
    return f"FAILED, recorded as such, so that the others can be judged: {reason}"


def failed(some: Iterable[tuple[str, str]], *, missing_ok: bool = False) -> dict[tuple[str, str], str]:
    """Return which of these runs, by backbone and name, failed, and why.

    A stamp that cannot be read is a StateError; with `missing_ok` its run is passed over, for the audit tells of it.
    """
    found = {}
    for run in some:
        with suppress(*[StateError] if missing_ok else ()):
            if (reason := stamps.read(stamp_path(*run)).facts.get("failed")) is not None:
                found[run] = str(reason)
    return found


def _tables(validation: Predictions) -> dict[str, Table]:
    """Return every image's true and decided class, and accuracy by bin of confidence."""
    decided = [validation.classes[number] for number in validation.decision()]
    images, confidence, right = metrics.plain_calibration(validation)
    used = [(images[bin_], confidence[bin_] / images[bin_], right[bin_] / images[bin_]) for bin_ in images.nonzero()[0]]
    return {
        "confusion": [HEADINGS["confusion"], *zip(validation.label, decided, strict=True)],
        "calibration": [
            HEADINGS["calibration"],
            *((f"{sure:.6f}", f"{true:.6f}", int(count)) for count, sure, true in used),
        ],
    }


def read(backbone: str, name: str, reader: Reader = predictions.read) -> Run:
    """Read a run; StateError if it failed, a part is missing or has other bytes than the stamp says.

    Args:
        backbone: its backbone.
        name: of the head or plan.
        reader: of its predictions.

    """
    stamp = stamps.read(stamp_path(backbone, name))
    if "failed" in stamp.facts:
        raise StateError(f"{backbone}/{name}: failed: {stamp.facts['failed']}; mend params.yaml and run `dvc repro`")
    found = reader(predictions.path_of(backbone, name), stamp)
    with stamps.requiring_facts(stamp_path(backbone, name)):
        return Run(backbone, name, stamp.facts["kind"], found, Cost(**stamp.facts["cost"]), stamp)


def read_all(some: Iterable[tuple[str, str]], reader: Reader = predictions.read) -> list[Run]:
    """Read runs by backbone and name, in their order; two at a time, for each may hold a gigabyte. Errors as `read`."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda run: read(run[0], run[1], reader), some))


def finished() -> list[str]:
    """Return <backbone>/<name> of every run that lies here, listed in params.yaml or not."""
    return list(map("/".join, artifacts.MODEL.stamps_here().values()))


def called(what: str, some: Iterable[str], where: str) -> str | None:
    """Return the one of some <backbone>/<name> that a person means by it, its folder or its name; None for none.

    Raises:
        InputError: if there are several; it begins with `where`.

    """
    path = os.path.relpath(os.path.abspath(what))  # noqa: PTH100  # a link may lead anywhere: the words count
    name = "/".join(artifacts.named(path)) if artifacts.MODEL.is_at(path) else what
    meant = [one for one in some if name in (one, one.partition("/")[2])]
    if len(meant) > 1:
        raise InputError(f"{where}: got {what!r}, which is on several backbones; expected one of: {', '.join(meant)}")
    return meant[0] if meant else None


def find(what: str, params: Params, where: str, reader: Reader = predictions.read) -> Run:
    """Read the run that a person means.

    Args:
        what: <backbone>/<name>, its folder, or just the name where a single backbone of `run` has a run of it, or a
            single one at all.
        params: whose backbones count first.
        where: what the person was asked for, to begin a complaint with.
        reader: of its predictions.

    Raises:
        InputError: if there is no such run, or several.
        StateError: as `read`.

    """
    present = finished()
    listed = [one for one in present if one.partition("/")[0] in params.run.backbones]
    meant = called(what, listed, where) or called(what, present, where)
    if meant is None:
        told = (
            unknown(where, what, present)
            if present
            else f"{where}: got {what!r}, but no run is finished; run `dvc repro`"
        )
        raise InputError(told)
    backbone, _, run = meant.partition("/")
    with made_again_by_dvc(params, backbone, run):
        return read(backbone, run, reader)


@contextmanager
def made_again_by_dvc(params: Params, backbone: str, name: str) -> Iterator[None]:
    """Add to a StateError about a run that `run` no longer lists what must come before the `dvc repro` it asks for."""
    try:
        yield
    except StateError as error:
        told = unlisted(params, backbone, name)
        raise (StateError(*error.problems, told) if told and told not in error.problems else error) from error


def unlisted(params: Params, backbone: str, name: str) -> str | None:
    """Say of a run that DVC does not make what would let it; None if params.yaml lists the run."""
    section = (
        "heads" if name in params.heads else "plans" if name in params.plans else "heads or run.plans, with an entry"
    )
    missing = [f"{backbone!r} to run.backbones"] if backbone not in params.run.backbones else []
    missing += [f"{name!r} to run.{section}"] if name not in (*params.run.heads, *params.run.plans) else []
    if not missing:
        return None
    return f"{backbone}/{name}: params.yaml does not list it, so add {' and '.join(missing)} before you run `dvc repro`"


def read_metrics(run: Run) -> dict[str, float]:
    """Read a run's validation metrics, checked against its stamp."""
    content = json.loads(stamps.check(metrics_path(run.backbone, run.name), run.stamp))
    return {name: float(content["validation"][name]) for name in metrics.METRICS}
