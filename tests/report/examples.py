"""Made-up evidence for the page: a head and a plan on images of one colour each."""

import colorsys
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from pipeline.core.cost import Cost
from pipeline.core.stamps import Stamp
from pipeline.data.images.thumbnails import Thumbnails
from pipeline.data.manifest import Manifest
from pipeline.evaluation import comparison, details, pairs
from pipeline.evaluation.comparison import Estimate
from pipeline.evaluation.efficiency import Crossover, CurveScore, LabelEfficiency
from pipeline.evaluation.runs import FinishedRun
from pipeline.evaluation.scoring.predictions import Predictions
from pipeline.evaluation.surveys import Survey
from pipeline.evaluation.transferability import Transferability
from pipeline.report.evidence import Evidence
from pipeline.verdict.schema import DetectableDifference, Factor, Result, Verdict

SHA256 = "0" * 64
SCORES = Transferability(20, 20, -0.4, 0.7, 0.8, 5, 0.5)
ESTIMATE = Estimate(0.85, 0.80, 0.90)
CELL, COLUMNS = 16, 8


def colour(place: int) -> tuple[int, int, int]:
    """Return the colour of a picture by its place in the sprite."""
    red, green, blue = colorsys.hsv_to_rgb((place * 0.37) % 1, 0.8, 0.9)
    return int(255 * red), int(255 * green), int(255 * blue)


def evidence(
    images: int = 40,
    classes: Sequence[str] = ("a", "b"),
    titles: Sequence[str] = ("logreg", "last"),
    ids: Sequence[str] = (),
    pictured: int = 24,
) -> Evidence:
    """Make evidence: the last quarter of the images is for test, the quarter before for validation."""
    ids = [*ids, *(f"{number:05}.png" for number in range(len(ids), images))]
    label = [classes[number % len(classes)] for number in range(images)]
    split = ["train"] * (images // 2) + ["val"] * (images // 4) + ["test"] * (images - images // 2 - images // 4)
    table = Manifest(ids, ids, [SHA256] * images, label, [None] * images, split)
    kinds = ["head", *["plan"] * (len(titles) - 1)]
    runs = [_run(f"run{number}", kind, table) for number, kind in enumerate(kinds)]
    verdict = _verdict(runs, titles, table)
    return Evidence(
        verdict, runs, [run.predictions for run in runs], table,
        {"tiny": survey(table)}, {"tiny": Stamp("embed@tiny", {"data/embeddings/tiny.h5": SHA256}, {}, {"recipe": {}})},
        _thumbnails([name for name, where in zip(ids, split, strict=True) if where == "test"][:pictured]),
    )  # fmt: skip


def survey(table: Manifest) -> Survey:
    """Put the images on a grid."""
    side = int(np.ceil(np.sqrt(len(table))))
    number = np.arange(len(table))
    return Survey(table.image_id, np.column_stack([number % side, number // side]) / side + 0.02, SCORES)


def _run(name: str, kind: str, table: Manifest) -> FinishedRun:
    rows = [row for row, split in enumerate(table.split) if split != "train"]
    classes = table.classes
    generator = np.random.default_rng(len(name) + ord(name[-1]))
    logits = generator.normal(size=(len(rows), len(classes)))
    logits[np.arange(len(rows)), [classes.index(table.label[row]) for row in rows]] += 1
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    image_id, split, label = ([column[row] for row in rows] for column in (table.image_id, table.split, table.label))
    facts = {"params": {"C": 1}, "device": "cpu", "seed": 0, "made_with": {"commit": "c0ffee", "libraries": {"x": "1"}}}
    if kind == "plan":
        facts["epochs"] = [{"loss": 1.0, "validation": 0.5}, {"loss": 0.5, "validation": 0.7}]
    stamp = Stamp(
        f"stage@{name}", {f"predictions/tiny/{name}.parquet": SHA256}, {"data/manifest.parquet": SHA256}, facts
    )
    return FinishedRun(
        "tiny", name, kind, Predictions(image_id, split, label, classes, probability), Cost(1, 2, 3), stamp
    )


def _verdict(runs: Sequence[FinishedRun], titles: Sequence[str], table: Manifest) -> Verdict:
    test = [run.predictions.of("test") for run in runs]
    resampled = comparison.bootstrap(test, 50, 0)
    accuracy = [float((one.decision() == one.truth()).mean()) for one in test]
    found = pairs.compare(
        {run.id: one for run, one in zip(runs, test, strict=True)}, resampled.metrics["accuracy"], accuracy, "accuracy"
    )
    results = [
        Result(
            "tiny", run.name, run.kind, title, {"accuracy": 0.8},
            dict.fromkeys(("balanced_accuracy", "macro_f1", "roc_auc"), ESTIMATE) | {"accuracy": Estimate(value, 0, 1)},
            Cost(2.0, 3.0 + number, 100), "cpu", 1_000_000, 12.5, number == 0,
            details.describe(test[number], resampled, number),
        )
        for number, (run, title, value) in enumerate(zip(runs, titles, accuracy, strict=True))
    ]  # fmt: skip
    return Verdict(
        answer="cannot tell",
        sentence=f"The best frozen head, {titles[0]}, ...",
        rule="a rule",
        metric="accuracy",
        margin=0.01,
        resamples=50,
        test_images={name: table.label.count(name) for name in table.classes},
        best_head=runs[0].id,
        best_plan=runs[1].id if len(runs) > 1 else None,
        results=results,
        pairs=found,
        detectable=DetectableDifference(0.034, (runs[0].id, runs[-1].id), 64, 0.8, 0.05),
        standing=[Factor("Compute", "Three seconds.")],
        skipped={},
        inputs={"predictions/tiny/run0.parquet": SHA256},
        transferability={"tiny": SCORES},
        curves={"tiny": _curve(titles)},
    )


def _curve(titles: Sequence[str]) -> LabelEfficiency:
    reached = {title: [CurveScore(labels, ESTIMATE, 0.01) for labels in (10, 100)] for title in titles}
    kinds = {title: "plan" if number else "head" for number, title in enumerate(titles)}
    crossed = [Crossover(title, [titles[0]] * 2, 31.6, 10.0, None, 0.9) for title in titles[1:]]
    return LabelEfficiency("accuracy", 3, reached, kinds, crossed)


def _thumbnails(image_id: Sequence[str]) -> Thumbnails:
    sprite = Image.new("RGB", (CELL * COLUMNS, CELL * max(1, -(-len(image_id) // COLUMNS))), "white")
    for place in range(len(image_id)):
        at = CELL * (place % COLUMNS), CELL * (place // COLUMNS)
        sprite.paste(colour(place), (*at, at[0] + CELL, at[1] + CELL))
    pictures = [_webp(Image.new("RGB", (8, 8), colour(place))) for place in range(len(image_id))]
    return Thumbnails(image_id, pictures, _webp(sprite), COLUMNS, CELL)


def _webp(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "WEBP", lossless=True)
    return stream.getvalue()
