"""Provenance on the page: the files and facts behind the numbers of every run and every backbone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.stamps import Stamp
from pipeline.embeddings import matrix, skipped
from pipeline.evaluation import runs
from pipeline.evaluation.runs import FinishedRun
from pipeline.report.evidence import Evidence


@dataclass(frozen=True)
class Origin:
    """The origin of one run, or of one backbone's embeddings."""

    anchor: str
    title: str
    facts: Mapping[str, str]
    made: Mapping[str, str]
    """path -> sha256 of the files that its stage wrote"""
    made_from: Mapping[str, str]
    """path -> sha256 of the files that it read"""


def origins(evidence: Evidence) -> list[Origin]:
    """Return the origin of every run, in the verdict's order, then of every backbone's embeddings."""
    of_runs = [
        _run_origin(number, result.title, run, evidence.verdict.inputs)
        for number, (result, run) in enumerate(zip(evidence.verdict.results, evidence.finished, strict=True))
    ]
    return of_runs + [
        _embeddings_origin(backbone, stamp, evidence.verdict.inputs) for backbone, stamp in evidence.embedded.items()
    ]


def _run_origin(number: int, title: str, run: FinishedRun, inputs: Mapping[str, str]) -> Origin:
    facts = run.stamp.facts
    made_with = facts.get("made_with", {})
    settings = ", ".join(f"{name}={value}" for name, value in facts.get("params", {}).items())
    changed = " with uncommitted changes" if made_with.get("uncommitted_changes") else ""
    shown = {
        "stage": run.stamp.stage,
        "settings": settings,
        "seed": facts.get("seed"),
        "code": f"commit {made_with['commit']}{changed}" if "commit" in made_with else None,
        "python": made_with.get("python"),
        "libraries": _comma_separated(made_with.get("libraries", {})),
        "machine": _comma_separated(made_with.get("machine", {})),
        "device": facts.get("device"),
    }
    return Origin(
        f"origin-{number}",
        title,
        {name: str(value) for name, value in shown.items() if value not in (None, "")},
        {**run.stamp.outputs} | _stamp_hash(runs.stamp_path(run.backbone, run.name), inputs),
        run.stamp.inputs,
    )


def _embeddings_origin(backbone: str, stamp: Stamp, inputs: Mapping[str, str]) -> Origin:
    shown = {"stage": stamp.stage, "recipe": _comma_separated(stamp.facts["recipe"])}
    paths = (matrix.stamp_path(backbone), skipped.path_of(backbone))
    made = {**stamp.outputs} | {name: sha for path in paths for name, sha in _stamp_hash(path, inputs).items()}
    return Origin(f"embeddings-{backbone}", f"Embeddings of {backbone}", shown, made, stamp.inputs)


def _stamp_hash(path: Path, inputs: Mapping[str, str]) -> dict[str, str]:
    """Return a stamp file with the hash that it had when the verdict was computed."""
    return {path.as_posix(): inputs[path.as_posix()]} if path.as_posix() in inputs else {}


def _comma_separated(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
