"""What the rows of the chain's tables say of each other, once their bytes are known to be the recorded ones."""

import json
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline import exclusions, manifest, runs, sources, stamps, verdict
from pipeline.embeddings import matrix
from pipeline.embeddings.cache import EmbeddingCache, keys_of
from pipeline.embeddings.hdf5 import Floats
from pipeline.embeddings.matrix import Embeddings
from pipeline.errors import PipelineError
from pipeline.evaluation import decisions, metrics
from pipeline.lineage.findings import Finding
from pipeline.manifest import Manifest
from pipeline.params import Params
from pipeline.runs import Run

CLOSE = 1e-9
"""Relative: numbers computed again elsewhere differ in their last bits."""
ROUNDED = 4
"""Of the storage type's spacing: how far rows of one recipe lie apart that another runtime or machine computed."""


def images(params: Params, table: Manifest) -> Iterator[Finding]:
    """Compare the manifest with what the data folder and params.yaml say now; the images' bytes are checked apart."""
    path = manifest.MANIFEST.as_posix()
    facts = stamps.read(manifest.STAMP).facts
    stated = {"source": params.data.source, "seed": params.seed, "split": params.split.model_dump()}
    for name, value in stated.items():
        if facts.get(name) != value:
            yield Finding(path, f"{value!r}, as in params.yaml", repr(facts.get(name)), f"{name}")
    listed = {
        (params.data.path / record.path).as_posix(): record
        for record in sources.records_of(params.data.source, params.data.path)
    }
    rows = {name: row for row, name in enumerate(table.path)}
    if doubled := len(table) - len(rows):
        yield Finding(path, "every image once", f"{doubled} rows more")
    excluded = exclusions.read()
    for name in sorted(listed.keys() - rows.keys()):
        if stamps.sha256_file(Path(name)) not in excluded:
            yield Finding(name, f"an image of {path}, or none", "one that is not in it")
    for name in sorted(rows.keys() & listed.keys()):
        record, row = listed[name], rows[name]
        if (record.label, record.group) != (table.label[row], table.group[row]):
            expected = f"label {record.label!r} and group {record.group!r}, as the data folder says"
            yield Finding(path, expected, f"{table.label[row]!r} and {table.group[row]!r}", f"{name}")


def embeddings(params: Params, table: Manifest, backbone: str) -> Iterator[Finding]:
    """Compare a matrix with manifest, params.yaml and the cache."""
    path = matrix.matrix_path(backbone).as_posix()
    embedded = matrix.read(backbone)
    matrix.require_recipe(embedded, backbone, params)
    if (found := stamps.sha256_file(manifest.MANIFEST)) != embedded.manifest_sha256:
        yield Finding(path, found, embedded.manifest_sha256, "manifest_sha256")
    recipe = stamps.read(matrix.stamp_path(backbone)).facts["recipe"]
    if recipe != embedded.recipe:
        yield Finding(path, f"{recipe}, as in its stamp", str(embedded.recipe), "recipe")
    skipped = stamps.read(matrix.stamp_path(backbone)).facts["skipped"]
    expected = [(name, sha) for name, sha in zip(table.image_id, table.sha256, strict=True) if name not in skipped]
    found_rows = [(name, bytes(sha).hex()) for name, sha in zip(embedded.image_id, embedded.sha256, strict=True)]
    yield from _unlike(path, expected, found_rows)
    if len(embedded.features) != len(found_rows):
        yield Finding(path, f"{len(found_rows)} rows", str(len(embedded.features)), "features")
    yield from _uncached(params, embedded, path)


def _unlike(path: str, expected: list[Any], found: list[Any]) -> Iterator[Finding]:
    """Yield the first row that differs, and how many do."""
    differing = [row for row, (one, other) in enumerate(zip_longest(expected, found)) if one != other]
    if differing:
        row = differing[0]
        one, other = (rows[row] if row < len(rows) else "no row" for rows in (expected, found))
        yield Finding(path, f"{one}", f"{other} ({len(differing)} rows differ)", f"row {row}")


def _uncached(params: Params, embedded: Embeddings, path: str) -> Iterator[Finding]:
    """Yield the rows that are not those of the cache; rows that it no longer holds cannot be compared."""
    cache = EmbeddingCache(params.embed.cache, embedded.recipe)
    keys = keys_of(bytes(sha).hex() for sha in embedded.sha256)
    absent = set(cache.missing(keys).tolist())
    here = np.array([row for row in range(len(keys)) if row not in absent], dtype=np.intp)
    far = 0
    for positions, stored in cache.blocks(keys[here]):
        rows = embedded.features[here[positions]]
        if rows.tobytes() != stored.tobytes():
            far += int((~alike(rows, stored)).sum())
    if far:
        yield Finding(path, f"the rows of {cache.folder}", f"{far} others", "features")


def alike(one: Floats, other: Floats) -> npt.NDArray[np.bool_]:
    """Return which rows (n, D) of two are the same up to what runtimes and machines differ in: (n,) of bool."""
    wide = one.astype(np.float64), other.astype(np.float64)
    length = np.maximum(np.linalg.norm(wide[0], axis=1), np.linalg.norm(wide[1], axis=1))
    tolerance = max(ROUNDED * float(np.finfo(one.dtype).eps), 1e-4)
    return np.asarray(np.linalg.norm(wide[0] - wide[1], axis=1) <= tolerance * length)


def run(table: Manifest, backbone: str, name: str) -> Iterator[Finding]:
    """Compare a run's predictions with the manifest, and its metrics with its predictions."""
    found = runs.read(backbone, name)
    path = runs.stamp_path(backbone, name).as_posix()
    skipped = stamps.read(matrix.stamp_path(backbone)).facts["skipped"]
    judged = {
        (table.image_id[row], table.split[row], table.label[row])
        for row in range(len(table))
        if table.split[row] != "train" and table.image_id[row] not in skipped
    }
    of = found.predictions
    predicted = list(zip(of.image_id, of.split, of.label, strict=True))
    if set(predicted) != judged or len(predicted) != len(judged):
        unlike = len(judged ^ set(predicted)) or len(predicted) - len(judged)
        yield Finding(path, f"{len(judged)} validation and test images", f"{unlike} others", "predictions")
    if of.classes != table.classes:
        yield Finding(path, str(table.classes), str(of.classes), "predictions: classes")
    yield from _scores(found)


def _scores(of: Run) -> Iterator[Finding]:
    stored = runs.read_metrics(of)
    for name, value in metrics.score(of.predictions.of("val")).items():
        if not np.isclose(stored[name], value, rtol=CLOSE, atol=CLOSE):
            path = runs.metrics_path(of.backbone, of.name).as_posix()
            yield Finding(path, f"{value}, from the predictions", str(stored[name]), f"validation.{name}")


def scores(params: Params) -> Iterator[Finding]:
    """Compare the test scores in verdict and scores.json with the predictions they are of."""
    content = verdict.read()
    metric = content["metric"]
    shown = json.loads(stamps.read_bytes(verdict.SCORES))["test"]
    reported = {f"{one['backbone']}/{one['name']}": one["test"][metric]["value"] for one in content["results"]}
    for name in sorted(shown.keys() | reported.keys()):
        if shown.get(name) != reported.get(name):
            expected = f"{reported.get(name)}, as in {verdict.VERDICT}"
            yield Finding(verdict.SCORES.as_posix(), expected, str(shown.get(name)), f"test.{name}")
    for backbone, name in params.runs():
        found = runs.read(backbone, name)
        value = _test_score(found, params, metric)
        if not np.isclose(reported.get(found.id, np.nan), value, rtol=CLOSE, atol=CLOSE):
            expected = f"{value}, from the predictions"
            yield Finding(verdict.VERDICT.as_posix(), expected, str(reported.get(found.id)), f"test of {found.id}")


def _test_score(of: Run, params: Params, metric: str) -> float:
    asked, test = params.compare, of.predictions.of("test")
    rule = decisions.choose(of.predictions.of("val"), asked.decision, asked.costs, params.selection.metric)
    return metrics.plain(rule.apply(test) if rule else test)[metric]


def checked(check: Callable[[], Iterator[Finding]], where: str) -> list[Finding]:
    """Return what a check finds; what it cannot even read is a finding, too."""
    found: list[Finding] = []
    try:
        found.extend(check())
    except PipelineError as error:
        found += [Finding(where, "what the chain can be followed through", problem) for problem in error.problems]
    return found
