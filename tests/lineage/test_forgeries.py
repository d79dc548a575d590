"""What someone forges who knows every record: the records agree with the files, but not with each other."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dvc.repo import Repo

from pipeline.core import params, stamps
from pipeline.core.artifacts import REPORT_PLOTS
from pipeline.core.errors import StateError
from pipeline.embeddings import matrix
from pipeline.embeddings.matrix import RowBlocks
from pipeline.evaluation import runs
from pipeline.evaluation.scoring import predictions
from pipeline.lineage import chain
from pipeline.lineage.audit.audit import Audit, audit
from pipeline.stages import compare, curve, finetune, quality, survey, train
from pipeline.verdict import schema
from tests.conftest import Project
from tests.lineage.forging import edit, stamp_anew
from tests.soak import soak


@pytest.fixture
def forged(recorded: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Audit]:
    """Stand in a copy to forge; the function makes all records agree with it and audits it."""
    shutil.copytree(recorded.root, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")

    def judge() -> Audit:
        chain.record(params.load())
        with Repo(".") as repository:
            repository.commit(force=True)
        return audit(params.load())

    return judge


def rewrite_matrix(order: np.ndarray, *, keys: bool) -> None:
    """Write the matrix's features in another order, and the rows' keys with them or not."""
    old = matrix.read("tiny")
    features, kept = np.array(old.features)[order], order if keys else np.arange(len(order))
    rows = RowBlocks(features.shape, features.dtype, old.recipe, [(np.arange(len(order)), features)])
    names = [old.image_id[row] for row in kept]
    matrix.write(matrix.matrix_path("tiny"), np.array(old.sha256)[kept], names, old.manifest_sha256, rows)
    stamp_anew(matrix.stamp_path("tiny"))


def rerun_from_embeddings() -> None:
    """Run what follows, so that every later stamp is honest about the forged rows."""
    read = params.load()
    for stage in (survey, curve):
        stage.main(read, "tiny")
    train.main(read, "tiny", "logreg")
    finetune.main(read, "tiny", "last")
    quality.main(read)
    compare.main(read)


@pytest.mark.parametrize(
    ("order", "keys", "expected"),
    [
        (lambda n: np.r_[1, 0, 2:n], False, "data/embeddings/tiny.h5: features"),
        (lambda n: np.r_[1, 0, 2:n], True, "data/embeddings/tiny.h5: row 0"),
        (lambda n: np.r_[0 : n - 1], True, f"data/embeddings/tiny.h5: row {23}"),
        (lambda n: np.r_[0:n, 0], True, f"data/embeddings/tiny.h5: row {24}"),
    ],
    ids=["features swapped", "rows swapped", "a row missing", "a row doubled"],
)
def test_forged_rows_are_compared_with_manifest_and_cache(
    forged: Callable[[], Audit], order: Callable[[int], np.ndarray], keys: bool, expected: str
) -> None:
    rewrite_matrix(order(24), keys=keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix, "require_recipe", lambda *_: None)
        if keys and order(24).shape != (24,):
            done = audit(params.load())  # later stages refuse such a matrix
            assert any(finding.path == "data/embeddings/tiny.h5" for finding in done.findings)
            return
        rerun_from_embeddings()
    assert expected in [finding.place for finding in forged().findings]


def test_a_forged_metric_is_compared_with_the_predictions(forged: Callable[[], Audit]) -> None:
    path = runs.metrics_path("tiny", "logreg")
    content = json.loads(path.read_text())
    content["validation"]["accuracy"] = 0.123
    path.write_text(json.dumps(content))
    stamp_anew(runs.stamp_path("tiny", "logreg"))
    compare.main(params.load())
    assert "metrics/tiny/logreg.json: validation.accuracy" in [finding.place for finding in forged().findings]


def test_a_prediction_that_moved_to_another_image_is_found(forged: Callable[[], Audit]) -> None:
    path, stamp = predictions.path_of("tiny", "logreg"), runs.stamp_path("tiny", "logreg")
    old = predictions.read(path, stamps.read(stamp))
    predictions.write(
        path, type(old)(["red/99.png", *old.image_id[1:]], old.split, old.label, old.classes, old.probability)
    )
    stamp_anew(stamp)
    done = audit(params.load())
    assert path.as_posix() in [finding.path for finding in done.findings]


@pytest.mark.parametrize("path", [schema.VERDICT, schema.SCORES, schema.PAGE, REPORT_PLOTS["scores"].at()])
def test_recording_refuses_altered_files_of_compare(forged: Callable[[], Audit], path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(StateError, match=f"{path}: expected sha256 .* as stamped in reports/compare.json"):
        forged()


@pytest.mark.parametrize("path", [schema.VERDICT, schema.SCORES, schema.PAGE])
def test_recording_refuses_a_stamp_that_omits_a_file(forged: Callable[[], Audit], path: Path) -> None:
    edit(schema.STAMP, lambda stamp: stamp["outputs"].pop(path.as_posix()))
    with pytest.raises(StateError, match=f"{path}: expected sha256 none"):
        forged()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda scores: scores["to_best_head"].update({"tiny/last": 0.5}), "to_best_head.tiny/last"),
        (lambda scores: scores.clear(), ""),
        *soak(
            [
                (lambda scores: scores["transferability"]["tiny"].update(logme=9.0), "transferability.tiny"),
                (lambda scores: scores["test"].clear(), "test.tiny/last"),
            ]
        ),
    ],
)
def test_scores_are_compared_with_the_verdict(
    forged: Callable[[], Audit], change: Callable[[Any], object], part: str
) -> None:
    edit(schema.SCORES, change)
    stamp_anew(schema.STAMP)
    finding = next(one for one in forged().findings if one.path == schema.SCORES.as_posix())
    assert finding.part == part
    assert part or finding.found == "content that raises KeyError 'test'"
