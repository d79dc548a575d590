"""doctor: find what would stop a run before anything expensive starts."""

from collections.abc import Iterator
from pathlib import Path

from pipeline import heads, sources
from pipeline.errors import InputError, PipelineError
from pipeline.heads import curve
from pipeline.params import Params

LOCK = Path("dvc.lock")
RWLOCK = Path(".dvc/tmp/rwlock")


def main(params: Params) -> str:
    """Check everything, report once; return the summary line."""
    problems = [*_settings(params), *_data(params), *_dvc()]
    if problems:
        raise InputError(*problems)
    runs = list(params.runs())
    return f"params.yaml, {params.data.path} and weights are in order; {len(runs)} runs to compare"


def _settings(params: Params) -> Iterator[str]:
    from pipeline.nn import backbones  # noqa: PLC0415  # after params were read: loading torch takes seconds

    for name, entry in params.heads.items():
        yield from heads.check(name, entry)
    yield from curve.check(params.curve.heads)
    for name in params.run.backbones:
        try:
            network = backbones.load(name, params.backbone(name)).network
            for plan in dict.fromkeys([*params.run.plans, *params.curve.plans]):
                network.split_before(params.plan(plan).unfreeze_from)
        except PipelineError as error:
            yield from error.problems


def _data(params: Params) -> Iterator[str]:
    try:
        sources.records_of(params.data.source, params.data.path)
    except PipelineError as error:
        yield from error.problems


def _dvc() -> Iterator[str]:
    """DVC never fsyncs: a kill can leave these two behind, and then every `dvc repro` fails with a traceback."""
    if LOCK.is_file() and not LOCK.read_bytes().strip():
        yield f"{LOCK}: empty, as a killed `dvc repro` leaves it; restore it: git checkout {LOCK}, or delete it"
    if RWLOCK.is_file() and not RWLOCK.read_bytes().strip():
        yield f"{RWLOCK}: empty, as a killed `dvc repro` leaves it; delete it"
