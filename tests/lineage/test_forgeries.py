"""What someone forges who knows every record: the records agree, and what they say of each other does not."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dvc.repo import Repo

from pipeline.core import params, stamps
from pipeline.core.artifacts import REPORT_PLOTS
from pipeline.core.errors import StateError
from pipeline.core.mismatches import Mismatch
from pipeline.data import exclusions, manifest
from pipeline.embeddings import matrix, upkeep
from pipeline.embeddings.matrix import Embeddings, Rows
from pipeline.evaluation import runs
from pipeline.evaluation.scoring import predictions
from pipeline.lineage import chain
from pipeline.lineage.audit import consistency, embedding_rows
from pipeline.lineage.audit.audit import Audit, audit
from pipeline.lineage.audit.recompute import Recomputed, recompute
from pipeline.stages import embed, finetune, prepare, thumbnails
from pipeline.verdict import schema
from tests.conftest import Project
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


def stamp_anew(path: Path, **inputs: str) -> None:
    """Make a stamp agree with the files beside it."""
    old = stamps.read(path)
    stamps.write(path, stamps.Stamp(**{**asdict(old), "outputs": stamps.hashes(map(Path, old.outputs))}))


def rewrite_matrix(order: np.ndarray, *, keys: bool) -> None:
    """Write the matrix's features in another order, and the rows' keys with them or not."""
    old = matrix.read("tiny")
    features, kept = np.array(old.features)[order], order if keys else np.arange(len(order))
    rows = Rows(features.shape, features.dtype, old.recipe, [(np.arange(len(order)), features)])
    names = [old.image_id[row] for row in kept]
    matrix.write(matrix.matrix_path("tiny"), np.array(old.sha256)[kept], names, old.manifest_sha256, rows)
    stamp_anew(matrix.stamp_path("tiny"))


def rerun_from_embeddings() -> None:
    """Run what follows, so that every later stamp is honest about the forged rows."""
    from pipeline.stages import compare, curve, finetune, quality, survey, train

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
def test_rows_that_all_records_agree_on_are_still_held_against_manifest_and_cache(
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


def test_a_metric_that_all_records_agree_on_is_held_against_the_predictions(forged: Callable[[], Audit]) -> None:
    path = runs.metrics_path("tiny", "logreg")
    content = json.loads(path.read_text())
    content["validation"]["accuracy"] = 0.123
    path.write_text(json.dumps(content))
    stamp_anew(runs.stamp_path("tiny", "logreg"))
    from pipeline.stages import compare

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


# --- Verdict, scores and page ------------------------------------------------------------------------------------


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("path", [schema.VERDICT, schema.SCORES, schema.PAGE, REPORT_PLOTS["scores"].at()])
def test_recording_does_not_launder_what_compare_wrote(forged: Callable[[], Audit], path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(StateError, match=f"{path}: expected sha256 .* as stamped in reports/compare.json"):
        forged()


@pytest.mark.parametrize("path", [schema.VERDICT, schema.SCORES, schema.PAGE])
def test_recording_refuses_a_stamp_that_is_silent_on_a_file(forged: Callable[[], Audit], path: Path) -> None:
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
def test_scores_are_held_against_the_verdict(
    forged: Callable[[], Audit], change: Callable[[Any], object], part: str
) -> None:
    edit(schema.SCORES, change)
    stamp_anew(schema.STAMP)
    finding = next(one for one in forged().findings if one.path == schema.SCORES.as_posix())
    assert finding.part == part
    assert part or finding.found == "content that cannot: KeyError 'test'"


# --- The list of images ------------------------------------------------------------------------------------------


def of_images(project: Project) -> list[Mismatch]:
    read = project.write()
    return consistency.checked(lambda: consistency.images(read, manifest.read()), "manifest")


def write_manifest(**columns: Any) -> None:
    manifest.write(replace(manifest.read(), **columns), dict(stamps.read(manifest.STAMP).facts))


def test_splits_are_dealt_again(project: Project) -> None:
    excluded = stamps.sha256_file(project.images[5])
    exclusions.add([excluded], "blurred")
    prepare.main(project.write())
    assert of_images(project) == []
    split = list(manifest.read().split)
    first, second = split.index("test"), split.index("train")
    split[first], split[second] = "train", "test"
    write_manifest(split=split)
    (finding,) = of_images(project)
    assert (finding.path, finding.part) == ("data/manifest.parquet", f"row {min(first, second)}")
    assert "(2 rows differ)" in finding.found


def test_an_image_that_the_data_folder_does_not_list_is_found(project: Project) -> None:
    prepare.main(project.write())
    Path("data/raw/red/00.png").rename("data/raw/red/00.txt")
    assert [finding.path for finding in of_images(project)] == ["data/raw/red/00.png"]


@pytest.mark.parametrize(
    ("image_id", "path"),
    [
        ("red/99.png", "../../evil.png"),
        ("../../evil.png", "data/raw/../../evil.png"),
        ("/etc/passwd", "/etc/passwd"),
        ("red/99.png", "data/other/red/99.png"),
        ("red/./99.png", "data/raw/red/99.png"),
        (None, "data/raw/red/99.png"),
    ],
)
def test_a_path_that_leads_out_of_the_data_folder_is_refused(project: Project, image_id: str, path: str) -> None:
    prepare.main(project.write())
    old = manifest.read()
    write_manifest(image_id=[*old.image_id[:-1], image_id], path=[*old.path[:-1], path])
    with pytest.raises(StateError, match="parquet: row 35: "):
        manifest.read()


def test_stages_open_images_in_the_data_folder_only(project: Project) -> None:
    read = project.write()
    prepare.main(read)
    write_manifest(path=[f"data/other/{image_id}" for image_id in manifest.read().image_id])
    stages = (thumbnails.main, lambda read: embed.main(read, "tiny"), lambda read: finetune.main(read, "tiny", "last"))
    for stage in stages:
        with pytest.raises(StateError, match="got images in data/other, expected data/raw as in params.yaml"):
            stage(read)


@pytest.mark.parametrize("content", [b"garbage", b"PAR1" * 9, None])
def test_a_manifest_that_is_none_is_refused_in_one_line(project: Project, content: bytes | None) -> None:
    prepare.main(project.write())
    if content is None:
        numbers = {name: [1] for name in manifest.COLUMNS} | {"label": [[1]]}
        pq.write_table(pa.table(numbers), manifest.MANIFEST)
    else:
        manifest.MANIFEST.write_bytes(content)
    stamp_anew(manifest.STAMP)
    with pytest.raises(StateError, match="not a manifest"):
        manifest.read()


@pytest.mark.parametrize(
    "content",
    [
        '{"stage": "a", "outputs": {}, "inputs": {}, "facts": null}',
        '{"stage": "a", "outputs": ["x"], "inputs": {}}',
        '{"stage": "a", "outputs": {"x": 1}, "inputs": {}}',
        '{"stage": "a", "outputs": {}, "inputs": null}',
        '{"stage": 1, "outputs": {}, "inputs": {}}',
        "[" * 200_000,
    ],
)
def test_a_stamp_of_other_types_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "stamp.json").write_text(content)
    with pytest.raises(StateError, match="is not a stamp"):
        stamps.read(tmp_path / "stamp.json")


# --- Further views, and what rows cost ---------------------------------------------------------------------------


@pytest.fixture
def embedded(project: Project) -> Callable[[], list[Mismatch]]:
    """Embed with further views; the function compares the matrix with all that is known of it."""
    read = project.write(embed={"copies": 2})
    prepare.main(read)
    embed.main(read, "tiny")
    return lambda: consistency.checked(lambda: consistency.embeddings(read, manifest.read(), "tiny"), "matrix")


def write_views(change: Callable[[Any], dict[str, Any]]) -> None:
    """Write the matrix with other further views."""
    old = matrix.read("tiny")
    assert old.augmented is not None
    new = replace(old.augmented, **change(old.augmented))

    def every(of: Embeddings | matrix.Augmented) -> Rows:
        features = np.array(of.features)
        return Rows(features.shape, features.dtype, of.recipe, [(np.arange(len(features)), features)])

    path = matrix.matrix_path("tiny")
    matrix.write(path, np.array(old.sha256), old.image_id, old.manifest_sha256, every(old), (every(new), new.row))
    stamp_anew(matrix.stamp_path("tiny"))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda _: {}, None),
        (lambda old: {"features": np.array(old.features)[::-1]}, "augmented/features"),
        (lambda old: {"row": np.array(old.row)[::-1]}, "augmented/row"),
        (lambda old: {"row": np.array(old.row)[2:], "features": np.array(old.features)[2:]}, "augmented/row"),
        (lambda old: {"recipe": {**old.recipe, "augment": {"crop": 1}}}, "augmented: recipe"),
    ],
)
def test_further_views_are_held_against_manifest_and_cache(
    embedded: Callable[[], list[Mismatch]], change: Callable[[Any], dict[str, Any]], part: str | None
) -> None:
    write_views(change)
    assert {finding.part for finding in embedded()} == ({part} if part else set())


def test_a_stamp_without_the_recipe_of_further_views_is_found(embedded: Callable[[], list[Mismatch]]) -> None:
    edit(matrix.stamp_path("tiny"), lambda stamp: stamp["facts"].pop("augmented_recipe"))
    assert [finding.part for finding in embedded()] == ["augmented: recipe"]


def test_a_cost_is_held_against_a_cache_of_just_these_rows(embedded: Callable[[], list[Mismatch]]) -> None:
    edit(matrix.cost_path("tiny"), lambda cost: cost.update(seconds=cost["seconds"] * 1.001))
    assert embedded() == []
    (told,) = embedding_rows.costs(params.load(), "tiny")
    assert (told.path, told.part) == ("data/embeddings/tiny.cost.json", "seconds")
    shutil.rmtree(".headswap/embeddings")
    assert list(embedding_rows.costs(params.load(), "tiny")) == []


def test_merged_shards_that_hold_other_rows_accuse_no_cost(project: Project) -> None:
    read, images = project.write(), project.images
    for left_out in (images[::2], [], images[:1]):  # two shards, then an image less
        exclusions.EXCLUDED.unlink(missing_ok=True)
        exclusions.add(map(stamps.sha256_file, left_out), "blurred")
        prepare.main(read)
        embed.main(read, "tiny")
    (stored,) = upkeep.recipes(read.embed.cache)
    upkeep.merge(stored)
    assert list(embedding_rows.costs(read, "tiny")) == []


def test_recomputing_a_row_of_no_image_is_a_finding(project: Project) -> None:
    read = project.write()
    prepare.main(read)
    embed.main(read, "tiny")
    old = manifest.read()
    write_manifest(**{name: getattr(old, name)[1:] for name in manifest.COLUMNS})
    (finding,) = consistency.checked(lambda: recompute(read, "tiny", 99, Recomputed()), "matrix")
    assert finding == Mismatch("matrix", finding.expected, f"content that cannot: KeyError '{old.image_id[0]}'")
