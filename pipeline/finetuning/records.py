"""What is told of a fine-tuned plan: in its model's description, in the run's stamp, and in the plots by epoch."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.core.params import Params
from pipeline.core.tables import Table
from pipeline.evaluation import runs
from pipeline.finetuning import prediction, saving
from pipeline.finetuning.examples import Examples
from pipeline.finetuning.inputs import Inputs
from pipeline.finetuning.task import Finetuned
from pipeline.networks import runtime


def description(params: Params, plan: str, given: Inputs) -> dict[str, Any]:
    """Return what model.json says."""
    return {
        "architecture": given.loaded.identity["backbone"],
        "classes": given.table.classes,
        "preprocessing": saving.preprocessing_of(given.loaded),
        "plan": params.plan(plan).model_dump(),
        "seed": params.seed,
        "made_from": given.made_from,
    }


def facts(
    params: Params, plan: str, given: Inputs, source: Examples, done: Finetuned, processes: int
) -> Mapping[str, Any]:
    """Return what the stamp says; the trained network is timed for it."""
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


def plots(done: Finetuned) -> dict[str, Table]:
    """Return what DVC draws of the training: loss and validation score by epoch."""
    numbered = list(enumerate(done.epochs, start=1))
    return {
        name: [("epoch", name), *((number, f"{getattr(epoch, name):.6f}") for number, epoch in numbered)]
        for name in runs.PLOTS
    }
