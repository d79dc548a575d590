"""The model card beside an ONNX file: what it was made from, how good it is, and what was not tested."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core import stamps
from pipeline.core.errors import InputError, StateError
from pipeline.data import manifest
from pipeline.evaluation import runs, unlikeness
from pipeline.quality import files
from pipeline.serving.export import onnx_model
from pipeline.serving.export.onnx_model import OnnxExport
from pipeline.serving.export.parity import Parity
from pipeline.serving.trained_model import TrainedModel
from pipeline.verdict import schema

FIRST_LINE = "# Model card: "
"""How a card begins: a file that begins otherwise is not overwritten."""


def require_place(path: Path) -> None:
    """Raise InputError if there is a file that is no card."""
    if path.exists() and not stamps.read_bytes(path).startswith(FIRST_LINE.encode()):
        raise InputError(f"{path}: is not a model card; choose another name for the .onnx file beside it")


def text(file: Path, sha256: str, exported: OnnxExport, model: TrainedModel, parity: Parity) -> str:
    """Return the card in Markdown, the same for the same model."""
    run, result = model.run, _result(model)
    made_with = run.stamp.facts["made_with"]
    changed = ", with uncommitted changes" * bool(made_with.get("uncommitted_changes"))
    settings = ", ".join(f"{name}={value}" for name, value in run.stamp.facts["params"].items() if value is not None)
    parts = [
        f"{FIRST_LINE}{run.id}",
        f"`{file.name}`, sha256 `{sha256}`. Written by `headswap export`; nothing here was entered by hand.",
        "## What it does",
        _bullets([
            f"takes `images`, uint8 (N, 3, {exported.framing.size}, {exported.framing.size}), RGB, for any N; gives "
            f"`probabilities`, float32 (N, {len(model.classes)})",
            f"classes, in the order of the columns: {', '.join(f'`{name}`' for name in model.classes)}",
            f"{'a frozen backbone and a head' if run.kind == 'head' else 'a fine-tuned network'}; settings: {settings}",
            f"the probabilities are {model.calibration()}",
            f"decision: {_decision(model)}",
            f"in ONNX Runtime it {parity}",
        ]),
        "## From file to pixels",
        _bullets(onnx_model.framing_steps(exported.framing)),
        "## Data",
        _counts(model),
        "## How good it is",
        _scores(result) if result else _unscored(model),
        "## What was not tested",
        _bullets(_limits(model)),
        "## Lineage",
        _table(["file", "sha256"], [[f"`{name}`", f"`{sha}`"] for name, sha in onnx_model.lineage(model).items()]),
        f"Code: commit `{made_with.get('commit', 'not known')}`{changed}; seed {run.stamp.facts['seed']}.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _result(model: TrainedModel) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """Return the verdict and its result of this run; None if there is no verdict, or none of the run as it is now."""
    at = runs.stamp_path(model.run.backbone, model.run.name)
    try:
        content = schema.read()
    except StateError:
        return None
    if content["inputs"].get(at.as_posix()) != stamps.sha256_file(at):
        return None
    wanted = model.run.backbone, model.run.name
    return next(((content, one) for one in content["results"] if (one["backbone"], one["name"]) == wanted), None)


def _counts(model: TrainedModel) -> str:
    rows = [(model.table.label[at], model.table.split[at]) for at in model.row]
    counted = Counter(rows)
    lines = [
        [f"`{label}`", *(str(counted[label, split]) for split in manifest.SPLITS)] for label in model.table.classes
    ]
    left_out, facts = len(model.table) - len(model.row), stamps.read(manifest.STAMP).facts
    notes = [f"Split by `{facts['split']['method']}`, seed {facts['seed']}."]
    notes += [f"{left_out} images could not be decoded and were left out."] if left_out else []
    notes += [f"{facts['excluded']} images were excluded by a person."] if facts.get("excluded") else []
    leaking = len(files.pairs_across_splits(model.table, 0))
    if leaking:
        notes.append(f"{leaking} pairs of nearly identical images are in two splits, which flatters the scores.")
    return "\n\n".join([_table(["class", *manifest.SPLITS], lines), " ".join(notes)])


def _scores(found: tuple[Mapping[str, Any], Mapping[str, Any]]) -> str:
    content, result = found
    images = sum(content["test_images"].values())
    lines = [
        [name.replace("_", " "), f"{one['value']:.4f}", f"{one['low']:.4f} to {one['high']:.4f}"]
        for name, one in result["test"].items()
    ]
    head = f"On {images} test images, which no choice of this model used, with 95% intervals:"
    by_validation = result["validation"][content["metric"]]
    chosen = f"Validation {content['metric'].replace('_', ' ')}: {by_validation:.4f}. {content['sentence']}"
    return "\n\n".join([head, _table(["metric", "value", "interval"], lines), chosen])


def _unscored(model: TrainedModel) -> str:
    how = "`dvc repro` scores what `run` in params.yaml lists"
    return f"Not scored: {schema.VERDICT} has no result of {model.run.id} as it is now; {how}."


def _decision(model: TrainedModel) -> str:
    rule = model.rule
    if rule is None:
        return "the most probable class"
    if rule.threshold is not None:
        return f"`{model.classes[1]}` where its probability exceeds {rule.threshold:.6g}, chosen on validation images"
    return "the smallest expected cost, as the file's property `headswap.decision` says"


def _limits(model: TrainedModel) -> Iterator[str]:
    yield (
        "images of other kinds than those above: other cameras, places, classes. `headswap predict` flags images "
        f"whose embedding is farther from the nearest training image than {unlikeness.UNLIKE:g}% of training images "
        "are; this file does not"
    )
    yield "the test images are from the same source as the training images: the scores say nothing about other sources"
    yield "runtimes other than ONNX Runtime on a CPU; lower precision or quantisation"
    if any(type(part).__name__ in _KEEPING for part in _parts(model.head)):
        yield "privacy: this head keeps embeddings of training images, and so does the file"


_KEEPING = ("KNeighborsClassifier", "SVC", "Nystroem")


def _parts(part: object) -> Iterator[object]:
    """Yield an estimator and all estimators inside it."""
    if isinstance(part, list | tuple):
        for one in part:
            yield from _parts(one)
    elif hasattr(part, "get_params"):
        yield part
        yield from _parts(list(vars(part).values()))
    elif hasattr(part, "estimator"):  # scikit-learn's calibrated classifier is no estimator itself
        yield from _parts(part.estimator)


def _bullets(lines: Iterator[str] | Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    escaped = [[cell.replace("|", "\\|") for cell in cells] for cells in [head, ["---"] * len(head), *rows]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)
