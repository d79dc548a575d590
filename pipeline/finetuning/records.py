"""The records of a fine-tuned plan: the description of its model, the facts in its stamp, and the plots by epoch."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.core.params import Params
from pipeline.core.tables import Table
from pipeline.evaluation import runs
from pipeline.finetuning import prediction, saving
from pipeline.finetuning.examples import Examples
from pipeline.finetuning.inputs import PlanInputs
from pipeline.finetuning.task import FinetuningResult
from pipeline.networks import runtime


def description(params: Params, plan: str, given: PlanInputs) -> dict[str, Any]:
    """Return the content of model.json."""
    return {
        "architecture": given.loaded.identity["backbone"],
        "classes": given.table.classes,
        "preprocessing": saving.preprocessing_of(given.loaded),
        "plan": params.plan(plan).model_dump(),
        "seed": params.seed,
        "made_from": given.made_from,
    }


def facts(
    params: Params, plan: str, given: PlanInputs, source: Examples, done: FinetuningResult, processes: int
) -> Mapping[str, Any]:
    """Return the facts for the stamp, with the time of predictions."""
    settings = params.plan(plan)
    return {
        "params": settings.model_dump(),
        "epochs": [asdict(epoch) for epoch in done.epochs],
        "seed": params.seed,
        "processes": processes,
        "device": runtime.device().type,
        **({"stored_bytes": source.stored_bytes} if settings.cache_frozen else {}),
        **prediction.facts(given.task, given.loaded, settings, params.embed.runtime, done.state),
    }


def plots(done: FinetuningResult) -> dict[str, Table]:
    """Return loss and validation score by epoch, for `dvc plots`."""
    numbered = list(enumerate(done.epochs, start=1))
    return {
        name: [("epoch", name), *((number, f"{getattr(epoch, name):.6f}") for number, epoch in numbered)]
        for name in runs.PLOTS
    }
