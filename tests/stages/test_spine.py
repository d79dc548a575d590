"""What the stages leave behind, run one after the other."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import heads
from pipeline.core import artifacts, stamps
from pipeline.core.errors import InputError, StateError
from pipeline.data import manifest
from pipeline.embeddings import matrix
from pipeline.evaluation import runs
from pipeline.stages import embed, prepare, train
from pipeline.verdict import schema
from tests.conftest import Project
from tests.stages.spine import run


def test_every_artifact_is_where_others_expect_it(finished: Project) -> None:
    for path in (
        "data/manifest.parquet",
        "data/embeddings/tiny.h5",
        "data/embeddings/tiny.json",
        "data/embeddings/tiny.skipped.json",
        "curves/tiny.parquet",
        "survey/tiny.parquet",
        "data/thumbnails.parquet",
        "data/thumbnails.webp",
        "models/tiny/logreg/model.skops",
        "models/tiny/logreg/run.json",
        "models/tiny/last/model.safetensors",
        "models/tiny/last/run.json",
        "predictions/tiny/logreg.parquet",
        "predictions/tiny/last.parquet",
        "metrics/tiny/logreg.json",
        "metrics/tiny/last.json",
        "reports/verdict.json",
        "reports/scores.json",
        "reports/plots/scores.csv",
        "reports/index.html",
        "reports/lineage.json",
    ):
        assert Path(path).is_file(), path
    assert pq.read_schema(manifest.MANIFEST).names == ["image_id", "path", "sha256", "label", "group", "split"]


@pytest.mark.parametrize("one", artifacts.ALL, ids=lambda one: one.path)
def test_every_artifact_is_left_by_its_stage_and_named_in_its_stamp(finished: Project, one: artifacts.Artifact) -> None:
    params = finished.write()
    runs_of = {"train": params.run.heads, "finetune": params.run.plans}
    makers = {name for stage in one.stages for name in runs_of.get(stage, ())}
    made = [names for names in one.names_in(params) if len(names) < 2 or names[1] in makers]
    assert made
    for names in made:
        path = one.at(*names)
        assert path.exists(), f"{path}: {' or '.join(one.stages)} must write it"
        if one.stamp and one.stamp != one.path:
            said = stamps.read(one.stamp_at(*names)).outputs
            files = [file for file in (sorted(path.iterdir()) if path.is_dir() else [path]) if file.name != "run.json"]
            missing = [file.as_posix() for file in files if file.as_posix() not in said]
            assert not missing, f"{one.stamp_at(*names)}: must have the sha256 of {missing} among its outputs"


@pytest.mark.parametrize("name", ["logreg", "last"])
def test_predictions_cover_validation_and_test_with_a_column_per_class(finished: Project, name: str) -> None:
    table = pq.read_table(f"predictions/tiny/{name}.parquet")
    assert table.column_names == ["image_id", "split", "label", "p_blue", "p_green", "p_red"]
    dealt = manifest.read()
    rows = zip(dealt.image_id, dealt.split, strict=True)
    expected = {image_id for image_id, split in rows if split != "train"}
    assert set(table["image_id"].to_pylist()) == expected


def test_the_same_seed_gives_the_same_predictions_metrics_and_manifest(finished: Project) -> None:
    names = ["data/manifest.parquet", "data/embeddings/tiny.h5", "predictions/tiny/logreg.parquet",
             "predictions/tiny/last.parquet", "metrics/tiny/logreg.json", "metrics/tiny/last.json",
             "models/tiny/last/model.safetensors"]  # fmt: skip
    first = [Path(name).read_bytes() for name in names]
    run(finished)
    assert [Path(name).read_bytes() for name in names] == first


def test_train_and_finetune_score_validation_only(finished: Project) -> None:
    for name in ("logreg", "last"):
        assert list(json.loads(Path(f"metrics/tiny/{name}.json").read_text())) == ["validation"]


def test_no_label_of_validation_or_test_reaches_a_heads_fit(finished: Project) -> None:
    before = pq.read_table("predictions/tiny/logreg.parquet")
    table = manifest.read()
    turned = dict(zip(table.classes, [*table.classes[1:], table.classes[0]], strict=True))
    labels = [
        turned[label] if split != "train" else label for label, split in zip(table.label, table.split, strict=True)
    ]
    manifest.write(dataclasses.replace(table, label=labels), {})
    params = finished.write()
    embed.main(params, "tiny")
    train.main(params, "tiny", "logreg")
    after = pq.read_table("predictions/tiny/logreg.parquet")
    assert after["label"] != before["label"]
    assert all(after[column] == before[column] for column in ("p_blue", "p_green", "p_red"))


def test_seconds_stand_in_run_json_and_not_in_metrics(finished: Project) -> None:
    facts = json.loads(Path("models/tiny/logreg/run.json").read_text())["facts"]
    assert facts["cost"]["seconds"] > 0
    assert "seconds" not in Path("metrics/tiny/logreg.json").read_text()


def test_images_that_were_skipped_are_missing_from_every_run_and_named_in_the_report(project: Project) -> None:
    Path("data/raw/red/00.png").write_bytes(b"no image")
    run(project, embed={"on_bad_image": "skip"})
    assert "red/00.png" in schema.PAGE.read_text()
    for name in ("logreg", "last"):
        assert "red/00.png" not in pq.read_table(f"predictions/tiny/{name}.parquet")["image_id"].to_pylist()


def test_a_misspelt_head_is_named_before_anything_is_read(project: Project) -> None:
    with pytest.raises(InputError, match="heads: got 'logrge'.*did you mean 'logreg'"):
        train.main(project.write(), "tiny", "logrge")


def test_embeddings_of_another_manifest_are_refused(finished: Project) -> None:
    prepare.main(finished.write(seed=3))
    with pytest.raises(StateError, match="made for another manifest"):
        train.main(finished.write(), "tiny", "logreg")


def test_adding_a_head_computes_no_forward_pass(project: Project, forwards: Callable[[], int]) -> None:
    run(project, run={"plans": []})
    before = forwards()
    run(project, run={"heads": ["logreg", "knn"], "plans": []})
    assert (before, forwards()) == (36, 36)


def test_heads_train_on_further_views_and_judge_the_images_as_they_are(finished: Project) -> None:
    plain = runs.read("tiny", "logreg").predictions
    params = finished.write(embed={"copies": 3, "augment": {"flips": "both", "crop": 0.6}})
    embed.main(params, "tiny")
    train.main(params, "tiny", "logreg")
    trained = runs.read("tiny", "logreg").predictions
    assert trained.image_id == plain.image_id
    assert (trained.probability != plain.probability).any()


@pytest.mark.parametrize("head", ["streaming_linear", "voting", "mlp"])
def test_every_way_to_train_ends_in_the_same_artifacts(project: Project, head: str) -> None:
    entries = {"streaming_linear": {"epochs": 2}, "mlp": {"epochs": 2, "calibrate": "temperature"},
               "voting": {"members": {"knn": {"n_neighbors": 3}, "lda": {}}}}  # fmt: skip
    run(project, heads={head: entries[head]}, run={"heads": [head], "plans": []}, embed={"copies": 1})
    model = heads.load(runs.folder("tiny", head), runs.read("tiny", head).stamp)
    embedded, predictions = matrix.read("tiny"), runs.read("tiny", head).predictions.of("test")
    rows = [list(embedded.image_id).index(name) for name in predictions.image_id]
    expected = heads.predict(model, embedded.features[rows].astype(np.float32))
    np.testing.assert_allclose(predictions.probability, expected, atol=1e-6)


def test_a_run_leaves_the_tables_that_dvc_plots(finished: Project) -> None:
    for name in ("logreg", "last"):
        validation = runs.read("tiny", name).predictions.of("val")
        decided = [validation.classes[number] for number in validation.decision()]
        lines = Path(f"plots/tiny/{name}/confusion.csv").read_text().splitlines()
        assert lines == ["true,decided", *map(",".join, zip(validation.label, decided, strict=True))]
        calibration = Path(f"plots/tiny/{name}/calibration.csv").read_text().splitlines()
        assert calibration[0] == "confidence,accuracy,images"
        assert sum(int(line.split(",")[2]) for line in calibration[1:]) == len(decided)


def test_metrics_hold_calibration_and_repeated_folds_where_they_were_asked_for(project: Project) -> None:
    run(project, heads={"logreg": {"calibrate": "temperature"}}, selection={"repeats": 2}, run={"plans": []})
    content = json.loads(Path("metrics/tiny/logreg.json").read_text())
    assert set(content) == {"validation", "calibration", "repeated"}
    assert len(content["repeated"]["accuracy"]["values"]) == 4
    assert set(content["validation"]["recall"]) == {"blue", "green", "red"}


def test_embeddings_made_by_other_settings_are_refused(finished: Project) -> None:
    content = {"tiny": {**finished.content["backbones"]["tiny"], "image_size": 64, "pooling": "max"}}
    params = finished.write(backbones=content, embed={"dtype": "float32"})
    with pytest.raises(StateError) as caught:
        train.main(params, "tiny", "logreg")
    assert caught.value.problems == (
        "data/embeddings/tiny.h5: pooling: got ['average'], expected ['max'] as in params.yaml; run `dvc repro`",
        "data/embeddings/tiny.h5: image_size: got 32, expected 64 as in params.yaml; run `dvc repro`",
        "data/embeddings/tiny.h5: dtype: got 'float16', expected 'float32' as in params.yaml; run `dvc repro`",
    )


def test_a_feature_that_is_not_a_number_is_named(finished: Project) -> None:
    embedded = matrix.read("tiny")
    features = np.array(embedded.features)
    row = next(row for row, split in enumerate(manifest.read().split) if split == "train")
    features[row, 3] = np.nan
    rows = matrix.RowBlocks(features.shape, features.dtype, embedded.recipe, [(np.arange(36), features)])
    path, stamp = matrix.matrix_path("tiny"), stamps.read(matrix.stamp_path("tiny"))
    matrix.write(path, embedded.sha256, embedded.image_id, embedded.manifest_sha256, rows)
    stamps.write(matrix.stamp_path("tiny"), dataclasses.replace(stamp, outputs=stamps.hashes([path])))
    with pytest.raises(InputError, match="heads.logreg: features: row 0: got NaN or infinity"):
        train.main(finished.write(), "tiny", "logreg")
