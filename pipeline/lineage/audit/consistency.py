"""Whether the files of the chain agree with each other, once their bytes are known to be the recorded ones."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core import stamps
from pipeline.core.errors import PipelineError
from pipeline.core.mismatches import Mismatch
from pipeline.core.params import Params
from pipeline.data import exclusions, manifest, sources
from pipeline.data.manifest import Manifest, Record
from pipeline.data.sources import Place
from pipeline.data.splits import methods
from pipeline.embeddings import matrix, skipped
from pipeline.evaluation import decisions, runs
from pipeline.evaluation.runs import FinishedRun
from pipeline.evaluation.scoring import metrics
from pipeline.lineage.audit import embedding_rows
from pipeline.verdict import schema

CLOSE = 1e-9
"""Relative tolerance: numbers computed again on another machine differ in their last bits."""
WRONG_CONTENT = (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError)
"""What code raises that uses a file whose content parses, but is not what it should be."""


def images(params: Params, table: Manifest) -> Iterator[Mismatch]:
    """Compare the manifest with the data folder's list and params.yaml; the images' bytes are checked elsewhere."""
    place = sources.place_of(params.data)
    listed = {record.path: record for record in sources.listed(place)}
    found = [*_settings(params), *_rows(table, listed, place)]
    yield from found or _splits(params, table, list(listed.values()))


def _settings(params: Params) -> Iterator[Mismatch]:
    """Compare the settings that `prepare` recorded with params.yaml."""
    facts = stamps.read(manifest.STAMP).facts
    for name, value in manifest.settings_of(params).items():
        if facts.get(name) != value:
            yield Mismatch(manifest.MANIFEST.as_posix(), f"{value!r}, as in params.yaml", repr(facts.get(name)), name)


def _rows(table: Manifest, listed: Mapping[str, Record], place: Place) -> Iterator[Mismatch]:
    """Compare the manifest's rows with the images that the data folder lists, and with the members of an archive."""
    path, rows = manifest.MANIFEST.as_posix(), table.row_of()
    if repeated := len(table) - len(rows):
        yield Mismatch(path, "every image once", f"{repeated} extra rows")
    for name in _not_excluded(place, sorted(listed.keys() - rows.keys())):
        yield Mismatch(place.shown(name), f"an image of {path}, or none", "one that is not in it")
    for name in sorted(rows.keys() - listed.keys()):
        expected = f"an image that the data folder lists, as {path} does"
        yield Mismatch(place.shown(name), expected, "one that it does not list")
    both = sorted(rows.keys() & listed.keys())
    for name, found in sources.read_again(place, both).items() if place.data.is_archive else ():
        if found != (expected := table.sha256[rows[name]]):
            yield Mismatch(place.shown(name), f"sha256 {expected} ({path})", f"sha256 {found}")
    for name in both:
        record, row = listed[name], rows[name]
        if (record.label, record.group) != (table.label[row], table.group[row]):
            expected = f"label {record.label!r} and group {record.group!r}, as the data folder says"
            yield Mismatch(path, expected, f"{table.label[row]!r} and {table.group[row]!r}", name)


def _not_excluded(place: Place, names: Sequence[str]) -> list[str]:
    """Return which images are not excluded, by their bytes.

    A remote root is not read again: there, the number of excluded images has to be the recorded one.
    """
    if place.data.remote:
        return [] if len(names) == stamps.read(manifest.STAMP).facts.get("excluded") else list(names)
    excluded = exclusions.read()
    return sorted(name for name, sha256 in sources.read_again(place, names).items() if sha256 not in excluded)


def _splits(params: Params, table: Manifest, listed: Sequence[Record]) -> Iterator[Mismatch]:
    """Split the manifest's images again; the other listed ones are excluded."""
    path, inside = manifest.MANIFEST.as_posix(), set(table.image_id)
    records = [record for record in listed if record.path in inside]
    names = [record.path for record in records]
    if names != list(table.image_id):
        yield from _first_difference(path, names, table.image_id)
        return
    splits = methods.assign(records, table.sha256, params.split, params.seed)
    pairs = [list(zip(names, some, strict=True)) for some in (splits, table.split)]
    yield from _first_difference(path, *pairs)


def embeddings(params: Params, table: Manifest, backbone: str) -> Iterator[Mismatch]:
    """Compare a matrix with manifest, params.yaml and the cache."""
    path = matrix.matrix_path(backbone).as_posix()
    embedded = matrix.read(backbone)
    matrix.require_recipe(embedded, backbone, params)
    if (found := stamps.sha256_file(manifest.MANIFEST)) != embedded.manifest_sha256:
        yield Mismatch(path, found, embedded.manifest_sha256, "manifest_sha256")
    facts = stamps.read(matrix.stamp_path(backbone)).facts
    if facts["recipe"] != embedded.recipe:
        yield Mismatch(path, f"{facts['recipe']}, as in its stamp", str(embedded.recipe), "recipe")
    further = embedded.augmented.recipe if embedded.augmented else None
    if (stamped := facts.get("augmented_recipe")) != further or (further is None and params.embed.copies):
        yield Mismatch(path, f"{stamped}, as in its stamp", str(further), "augmented: recipe")
    left_out = skipped.read_for(backbone, embedded.recipe)
    expected = [(name, sha) for name, sha in zip(table.image_id, table.sha256, strict=True) if name not in left_out]
    found_rows = [(name, bytes(sha).hex()) for name, sha in zip(embedded.image_id, embedded.sha256, strict=True)]
    yield from _first_difference(path, expected, found_rows)
    if len(embedded.features) != len(found_rows):
        yield Mismatch(path, f"{len(found_rows)} rows", str(len(embedded.features)), "features")
    else:
        yield from embedding_rows.check(params, table, backbone, embedded)


def _first_difference(path: str, expected: Sequence[Any], found: Sequence[Any]) -> Iterator[Mismatch]:
    """Yield the first row that differs, with the number of rows that do."""
    differing = [row for row, (one, other) in enumerate(zip_longest(expected, found)) if one != other]
    if differing:
        row = differing[0]
        one, other = (rows[row] if row < len(rows) else "no row" for rows in (expected, found))
        yield Mismatch(path, f"{one}", f"{other} ({len(differing)} rows differ)", f"row {row}")


def run(table: Manifest, backbone: str, name: str) -> Iterator[Mismatch]:
    """Compare a run's predictions with the manifest, and its metrics with its predictions."""
    found = runs.read(backbone, name)
    path, left_out = runs.stamp_path(backbone, name).as_posix(), skipped.read(backbone)
    expected = {
        (image_id, split, label)
        for image_id, split, label in zip(table.image_id, table.split, table.label, strict=True)
        if split != "train" and image_id not in left_out
    }
    of = found.predictions
    predicted = list(zip(of.image_id, of.split, of.label, strict=True))
    if set(predicted) != expected or len(predicted) != len(expected):
        others = len(expected ^ set(predicted)) or len(predicted) - len(expected)
        yield Mismatch(path, f"{len(expected)} validation and test images", f"{others} others", "predictions")
    if of.classes != table.classes:
        yield Mismatch(path, str(table.classes), str(of.classes), "predictions: classes")
    stored = runs.read_metrics(found)
    for metric, value in metrics.score(of.of("val")).items():
        if not np.isclose(stored[metric], value, rtol=CLOSE, atol=CLOSE):
            path = runs.metrics_path(backbone, name).as_posix()
            yield Mismatch(path, f"{value}, from the predictions", str(stored[metric]), f"validation.{metric}")


def scores(params: Params) -> Iterator[Mismatch]:
    """Compare scores.json with the verdict, and the test scores in it with the predictions they are of."""
    content = schema.read()
    metric, judged = content["metric"], schema.scores(content)
    yield from checked(partial(_scores_file, judged), schema.SCORES.as_posix())
    reported = judged["test"]
    failed = runs.failures(params.runs(), missing_ok=True)
    for backbone, name in (run for run in params.runs() if run not in failed):
        found = runs.read(backbone, name)
        value = _test_score(found, params, metric)
        if not np.isclose(reported.get(found.id, np.nan), value, rtol=CLOSE, atol=CLOSE):
            expected = f"{value}, from the predictions"
            yield Mismatch(schema.VERDICT.as_posix(), expected, str(reported.get(found.id)), f"test of {found.id}")


def _scores_file(judged: Mapping[str, Mapping[str, Any]]) -> Iterator[Mismatch]:
    shown = json.loads(stamps.read_bytes(schema.SCORES))
    for section, values in judged.items():
        for name in sorted(shown[section].keys() | values.keys()):
            said, expected = shown[section].get(name), values.get(name)
            if said != expected:
                where = schema.SCORES.as_posix()
                yield Mismatch(where, f"{expected}, as in {schema.VERDICT}", str(said), f"{section}.{name}")


def _test_score(of: FinishedRun, params: Params, metric: str) -> float:
    test, rule = of.predictions.of("test"), decisions.rule_for(of.predictions, params)
    return metrics.plain(rule.apply(test) if rule else test)[metric]


def _expected(where: str, problem: str) -> str:
    """Say what a check of a file lacked: its content, or that of another file, with which the problem then begins."""
    other = problem.partition(": ")[0]
    return "usable files to compare it with" if other != where and Path(other).is_file() else "usable content"


def checked(check: Callable[[], Iterable[Mismatch]], where: str) -> list[Mismatch]:
    """Return what a check finds; that it cannot read or use a file is a finding, too."""
    found: list[Mismatch] = []
    try:
        found.extend(check())
    except PipelineError as error:
        found += [Mismatch(where, _expected(where, problem), problem) for problem in error.problems]
    except WRONG_CONTENT as error:
        got = f"content that raises {type(error).__name__} {error}"
        found.append(Mismatch(where, "usable content", got))
    return found
