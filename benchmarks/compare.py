"""The stage `compare` on 250,000 test images of 1,000 classes: two heads and a plan, made up, in a process alone."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from ruamel.yaml import YAML

from benchmarks.clone import REPOSITORY
from benchmarks.figures import Figure, at_most
from pipeline.core import stamps
from pipeline.core.cost import Cost
from pipeline.core.stamps import Stamp
from pipeline.data import manifest
from pipeline.data.images import thumbnails
from pipeline.data.images.thumbnails import Thumbnails
from pipeline.data.manifest import Manifest
from pipeline.embeddings import matrix, skipped
from pipeline.evaluation import curves, runs, surveys
from pipeline.evaluation.curves import CurveDecisions, Point
from pipeline.evaluation.scoring import metrics, predictions
from pipeline.evaluation.scoring.predictions import Ints
from pipeline.evaluation.surveys import Survey
from pipeline.evaluation.transferability import Transferability
from pipeline.quality import files

IMAGES = {"train": 225_000, "val": 25_000, "test": 250_000}
CLASSES = 1000
RUNS = {"logreg": ("head", 9.0), "knn": ("head", 8.5), "full": ("plan", 9.2)}
"""Kind, and how much the true class stands out."""
GROUP = 2**25 // CLASSES
"""Rows that the predictions' writer puts together."""
BACKBONE = "made_up"

_COMPARE = """
import sys
from pathlib import Path
from pipeline import cli
if status := cli.main(["compare"]):
    sys.exit(status)
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024)
"""


def measure() -> Iterator[Figure]:
    """Make the project up, and judge it."""
    with tempfile.TemporaryDirectory() as folder:
        with chdir(folder):
            _make_up()
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        started = time.perf_counter()
        said = subprocess.check_output([sys.executable, "-c", _COMPARE], cwd=folder, env=environment, text=True)
        took, peak = time.perf_counter() - started, int(said.splitlines()[-1])
        size = (Path(folder) / "reports/index.html").stat().st_size
    what = f"compare on {IMAGES['test']:,} test images of {CLASSES:,} classes, {len(RUNS)} runs"
    yield at_most(what, took, "s", 60)
    yield at_most(f"{what}, peak memory", peak / 1e9, "GB", 2)
    yield at_most(f"{what}, the page", size / 1e6, "MB", 8)


def _make_up() -> None:
    """Write what `compare` reads into the current folder."""
    with (REPOSITORY / "params.yaml").open() as stream:
        content = YAML(typ="safe").load(stream)
    content["run"] = {"backbones": [BACKBONE], "heads": ["logreg", "knn"], "plans": ["full"]}
    content["backbones"] = {BACKBONE: {"kind": "efficientnet_lite0"}}
    with Path("params.yaml").open("w") as stream:
        YAML(typ="safe").dump(content, stream)
    generator = np.random.default_rng(0)
    table = _manifest(generator)
    thumbnails.write(_thumbnails(table, generator))
    files.write(table, {}, len(table), {})
    matrix.matrix_path(BACKBONE).parent.mkdir(parents=True)
    matrix.matrix_path(BACKBONE).write_bytes(b"not read")
    matrix.cost_path(BACKBONE).write_text(json.dumps(asdict(Cost(1.0, 1.0, len(table)))))
    stamps.write(matrix.stamp_path(BACKBONE), Stamp(f"embed@{BACKBONE}", {}, {}, {"recipe": {}}))
    skipped.write(BACKBONE, {}, "", {})
    scores = Transferability(20_000, 225_000, 0.1, 0.7, 0.8, 5, 0.001)
    surveys.write(BACKBONE, Survey(table.image_id, generator.random((len(table), 2)), scores), {})
    judged = [row for row, split in enumerate(table.split) if split != "train"]
    truth = np.array([int(table.label[row][1:]) for row in judged])
    _curve(table, judged, truth, generator)
    for name, (kind, skill) in RUNS.items():
        _run(name, kind, skill, table, judged, truth, generator)


def _manifest(generator: np.random.Generator) -> Manifest:
    number = sum(IMAGES.values())
    ids = [f"class {place % CLASSES:03}/{place:08}.jpg" for place in range(number)]
    split = generator.permutation(np.repeat(list(IMAGES), list(IMAGES.values()))).tolist()
    label = [f"c{place % CLASSES:03}" for place in range(number)]
    table = Manifest(ids, ids, [f"{place:064x}" for place in range(number)], label, [None] * number, split)
    manifest.MANIFEST.parent.mkdir(parents=True)
    manifest.write(table, {})
    return table


def _thumbnails(table: Manifest, generator: np.random.Generator) -> Thumbnails:
    """Make pictures of coloured clouds, as many and about as large as those of photographs."""
    some = [table.image_id[row] for row in thumbnails.chosen(table)]
    side = math.ceil(math.sqrt(len(some)))
    clouds = Image.fromarray(generator.integers(0, 256, (side * 20, side * 20, 3), dtype=np.uint8))
    grid = clouds.resize((side * thumbnails.CELL,) * 2)
    one, sprite = BytesIO(), BytesIO()
    grid.crop((0, 0, thumbnails.SIDE, thumbnails.SIDE)).save(one, "WEBP", quality=thumbnails.QUALITY)
    grid.save(sprite, "WEBP", quality=thumbnails.QUALITY)
    return Thumbnails(some, [one.getvalue()] * len(some), sprite.getvalue(), side, thumbnails.CELL)


def _curve(table: Manifest, judged: list[int], truth: Ints, generator: np.random.Generator) -> None:
    """Write what two heads decide that learnt from five parts, drawn three times."""

    def decided(part: int) -> Ints:
        return np.where(
            generator.random(len(truth)) < 0.3 + 0.1 * part, truth, generator.integers(CLASSES, size=len(truth))
        )

    points = [
        Point(run, 1000 * 2**part, seed, decided(part))
        for run in ("logreg", "rbf_svm") for part in range(5) for seed in range(3)
    ]  # fmt: skip
    image_id, split, label = ([column[row] for row in judged] for column in (table.image_id, table.split, table.label))
    kinds = {"logreg": "head", "rbf_svm": "head"}
    curves.write(BACKBONE, CurveDecisions(image_id, split, label, table.classes, kinds, points, {}), {})


def _run(
    name: str, kind: str, skill: float, table: Manifest, judged: list[int], truth: Ints, generator: np.random.Generator
) -> None:
    """Write predictions row group by row group: their writer would hold them all."""
    path = predictions.path_of(BACKBONE, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer: pq.ParquetWriter | None = None
    for start in range(0, len(judged), GROUP):
        rows = judged[start : start + GROUP]
        logits = generator.standard_normal((len(rows), CLASSES)) * 2
        logits[np.arange(len(rows)), truth[start : start + GROUP]] += skill * generator.random(len(rows))
        p = np.exp(logits)
        p /= p.sum(axis=1, keepdims=True)
        columns: dict[str, Any] = {
            key: [getattr(table, key)[row] for row in rows] for key in ("image_id", "split", "label")
        }
        columns |= {f"p_{one}": p[:, number] for number, one in enumerate(table.classes)}
        part = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, part.schema, compression="zstd")
        writer.write_table(part)
    if writer:
        writer.close()
    place = runs.metrics_path(BACKBONE, name)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps({"validation": dict.fromkeys(metrics.METRICS, skill / 10)}))
    facts = {"kind": kind, "cost": asdict(Cost(1.0, 1.0, 1)), "bytes_on_disk": 1, "device": "cpu", "params": {}}
    if kind == "plan":
        facts["epochs"] = [{"loss": 1.0, "validation": 0.5}, {"loss": 0.5, "validation": 0.7}]
    stamp = runs.stamp_path(BACKBONE, name)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamps.write(stamp, Stamp(f"made up@{name}", stamps.hashes([path, place]), {}, facts))
