"""The stages one after the other on a tiny project, called as functions."""

import csv
import dataclasses
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from markupsafe import Markup

from pipeline import heads, lineage, manifest, runs, stamps, verdict
from pipeline.commands import report
from pipeline.cost import Cost
from pipeline.embeddings import matrix
from pipeline.errors import CheckFailed, InputError, StateError
from pipeline.evaluation import metrics
from pipeline.report import charts, embedding_map
from pipeline.stages import audit, compare, curve, embed, finetune, prepare, survey, thumbnails, train
from tests.conftest import Project


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the charts out, which take longer than all stages together; tests/report and tests/browser draw them."""
    monkeypatch.setattr(charts, "_drawn", lambda draw, description: Markup(""))
    monkeypatch.setattr(embedding_map, "library", lambda: "")


def run(project: Project, **sections: Any) -> dict[str, Any]:
    params = project.write(**sections)
    prepare.main(params)
    thumbnails.main(params)
    for backbone in params.run.backbones:
        embed.main(params, backbone)
        survey.main(params, backbone)
        curve.main(params, backbone)
        for head in params.run.heads:
            train.main(params, backbone, head)
        for plan in params.run.plans:
            finetune.main(params, backbone, plan)
    compare.main(params)
    audit.main(params, record=True)
    return json.loads(verdict.VERDICT.read_text())  # type: ignore[no-any-return]


def test_every_artifact_is_where_others_expect_it(project: Project) -> None:
    run(project)
    for path in (
        "data/manifest.parquet",
        "data/embeddings/tiny.h5",
        "data/embeddings/tiny.json",
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


@pytest.mark.parametrize("name", ["logreg", "last"])
def test_predictions_cover_validation_and_test_with_a_column_per_class(project: Project, name: str) -> None:
    run(project)
    table = pq.read_table(f"predictions/tiny/{name}.parquet")
    assert table.column_names == ["image_id", "split", "label", "p_blue", "p_green", "p_red"]
    dealt = manifest.read()
    rows = zip(dealt.image_id, dealt.split, strict=True)
    expected = {image_id for image_id, split in rows if split != "train"}
    assert set(table["image_id"].to_pylist()) == expected


def test_the_same_seed_gives_the_same_predictions_metrics_and_manifest(project: Project) -> None:
    names = ["data/manifest.parquet", "data/embeddings/tiny.h5", "predictions/tiny/logreg.parquet",
             "predictions/tiny/last.parquet", "metrics/tiny/logreg.json", "metrics/tiny/last.json",
             "models/tiny/last/model.safetensors"]  # fmt: skip
    run(project)
    first = [Path(name).read_bytes() for name in names]
    run(project)
    assert [Path(name).read_bytes() for name in names] == first


def test_train_and_finetune_score_validation_only(project: Project) -> None:
    run(project)
    for name in ("logreg", "last"):
        assert list(json.loads(Path(f"metrics/tiny/{name}.json").read_text())) == ["validation"]


def test_no_label_of_validation_or_test_reaches_a_heads_fit(project: Project) -> None:
    run(project, run={"plans": []})
    before = pq.read_table("predictions/tiny/logreg.parquet")
    table = manifest.read()
    turned = dict(zip(table.classes, [*table.classes[1:], table.classes[0]], strict=True))
    labels = [
        turned[label] if split != "train" else label for label, split in zip(table.label, table.split, strict=True)
    ]
    manifest.write(dataclasses.replace(table, label=labels), {})
    params = project.write()
    embed.main(params, "tiny")
    train.main(params, "tiny", "logreg")
    after = pq.read_table("predictions/tiny/logreg.parquet")
    assert after["label"] != before["label"]
    assert all(after[column] == before[column] for column in ("p_blue", "p_green", "p_red"))


def test_the_best_head_is_the_one_with_the_best_validation_score_whatever_the_test_says(project: Project) -> None:
    run(project, run={"heads": ["logreg", "knn"], "plans": []})
    for name, good_split in (("logreg", "val"), ("knn", "test")):
        one = runs.read("tiny", name)
        truth = np.eye(3)[one.predictions.truth()]
        good = (np.array(one.predictions.split) == good_split)[:, None]
        probability = np.where(good, truth, np.roll(truth, 1, axis=1))
        predictions = dataclasses.replace(one.predictions, probability=probability)
        files = [runs.folder("tiny", name) / "model.skops"]
        runs.record("tiny", name, "head", runs.Made(predictions, files, Cost()), {}, one.stamp.facts)
    compare.main(project.write())
    judged = json.loads(verdict.VERDICT.read_text())
    assert judged["best_head"] == "tiny/logreg"
    assert judged["results"][1]["test"]["accuracy"]["value"] == 1.0


def test_seconds_stand_in_run_json_and_not_in_metrics(project: Project) -> None:
    run(project)
    facts = json.loads(Path("models/tiny/logreg/run.json").read_text())["facts"]
    assert facts["cost"]["seconds"] > 0
    assert "seconds" not in Path("metrics/tiny/logreg.json").read_text()


def test_the_verdict_has_every_run_with_intervals_differences_and_cost(project: Project) -> None:
    judged = run(project, run={"heads": ["logreg", "knn"]})
    assert [result["name"] for result in judged["results"]] == ["logreg", "knn", "last"]
    for result in judged["results"]:
        assert set(result["test"]) == set(metrics.METRICS)
        assert all(one["low"] <= one["value"] <= one["high"] for one in result["test"].values())
        assert result["cost"]["images"] >= 36
        assert result["cost"]["peak_memory"] > 1e7
        assert result["seconds_per_1000"] > 0
        assert result["bytes_on_disk"] > 0
        assert result["device"] == "cpu"
    assert [(pair["first"], pair["second"]) for pair in judged["pairs"]] == [
        ("tiny/logreg", "tiny/knn"), ("tiny/logreg", "tiny/last"), ("tiny/knn", "tiny/last")
    ]  # fmt: skip
    assert all(0 <= pair["mcnemar_p"] <= pair["holm_p"] <= 1 for pair in judged["pairs"])


def test_a_run_that_is_no_longer_listed_leaves_the_verdict(project: Project) -> None:
    run(project, run={"heads": ["logreg", "knn"]})
    judged = run(project, run={"heads": ["logreg"]})
    assert [result["name"] for result in judged["results"]] == ["logreg", "last"]


def test_the_verdict_has_scores_by_number_of_labels_and_where_a_plan_gets_ahead(project: Project) -> None:
    judged = run(project, curve={"plans": ["last"]})
    found = judged["curves"]["tiny"]
    assert [one["labels"] for one in found["reached"]["last"]] == [9, 18]
    assert [one["plan"] for one in found["crossovers"]] == ["last"]
    assert {"curves/tiny.parquet", "curves/tiny.json"} <= judged["inputs"].keys()
    assert "What more labels bring" in verdict.PAGE.read_text()


def test_a_single_run_is_reported_with_nothing_to_compare(project: Project) -> None:
    judged = run(project, run={"plans": []})
    assert judged["answer"] == "cannot tell"
    assert "It is the only run" in judged["sentence"]
    assert "cannot tell" in verdict.PAGE.read_text()


def test_two_runs_are_compared_in_the_terminal_and_nothing_is_written(project: Project) -> None:
    judged = run(project)
    before = {path: path.stat().st_mtime_ns for path in Path("reports").rglob("*")}
    table = compare.main(project.write(), ["logreg", "tiny/last"])
    assert {path: path.stat().st_mtime_ns for path in Path("reports").rglob("*")} == before
    (pair,) = judged["pairs"]
    lines = {line.split("  ")[0]: line for line in table.splitlines()}
    assert all(
        f"{100 * result['test']['accuracy']['value']:.1f} [" in lines["accuracy"] for result in judged["results"]
    )
    gain = {name: -value for name, value in pair["difference"].items()}
    assert f"{100 * gain['value']:+.1f} [{100 * gain['high']:+.1f}, {100 * gain['low']:+.1f}]" in lines["accuracy"]
    assert f"McNemar p {pair['mcnemar_p']:.3g}" in lines["alone right on"]
    assert set(metrics.METRICS) <= set(lines)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (["logrge", "last"], "got 'logrge', expected one of: tiny/last, tiny/logreg; did you mean 'tiny/logreg'?"),
        (["logreg"], "got 1 run, expected two"),
        (["logreg", "tiny/logreg"], "got tiny/logreg twice, expected two different runs"),
        (["logreg", "last", "last"], "got 3 runs, expected two"),
    ],
)
def test_runs_to_compare_that_do_not_exist_or_are_not_two_are_named(
    project: Project, named: list[str], words: str
) -> None:
    run(project)
    with pytest.raises(InputError, match=re.escape(words)):
        compare.main(project.write(), named)


def test_scores_for_dvc_are_the_verdicts_and_repeat(project: Project) -> None:
    judged = run(project)
    scores = verdict.SCORES.read_bytes()
    content = json.loads(scores)
    for result in judged["results"]:
        assert content["test"][f"tiny/{result['name']}"] == result["test"]["accuracy"]["value"]
    assert content["to_best_head"] == {"tiny/last": -judged["pairs"][0]["difference"]["value"]}
    assert content["transferability"]["tiny"]["knn_accuracy"] == judged["transferability"]["tiny"]["knn_accuracy"]
    run(project)
    assert verdict.SCORES.read_bytes() == scores


def test_tables_for_dvc_hold_the_verdicts_numbers(project: Project) -> None:
    judged = run(project)
    with (verdict.PLOTS / "scores.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    expected = [{"run": f"tiny/{one['name']}", **one["test"]["accuracy"]} for one in judged["results"]]
    assert [{**row, **{name: float(row[name]) for name in ("value", "low", "high")}} for row in rows] == expected
    assert sorted(path.stem for path in verdict.PLOTS.iterdir()) == [
        "cost",
        "differences",
        "label_efficiency",
        "scores",
    ]


def test_the_report_says_where_the_page_is_and_shows_it_if_asked(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: shown.append(url) or True)  # type: ignore[func-returns-value]
    with pytest.raises(StateError, match="run `dvc repro`"):
        report.main(project.write(), open=False)
    judged = run(project)
    assert report.main(project.write(), open=False) == f"{judged['sentence']} See {verdict.PAGE.resolve()}"
    assert shown == []
    report.main(project.write(), open=True)
    assert shown == [verdict.PAGE.resolve().as_uri()]
    monkeypatch.setattr("webbrowser.open", lambda _: False)
    with pytest.raises(StateError, match="no browser was found"):
        report.main(project.write(), open=True)


def test_a_verdict_of_another_version_is_refused(project: Project) -> None:
    run(project)
    verdict.VERDICT.write_text('{"schema_version": 3}')
    with pytest.raises(StateError, match="schema_version: got 3, expected 4"):
        verdict.read()


def test_images_that_were_skipped_are_missing_from_every_run_and_named_in_the_report(project: Project) -> None:
    Path("data/raw/red/00.png").write_bytes(b"no image")
    run(project, embed={"on_bad_image": "skip"})
    assert "red/00.png" in verdict.PAGE.read_text()
    for name in ("logreg", "last"):
        assert "red/00.png" not in pq.read_table(f"predictions/tiny/{name}.parquet")["image_id"].to_pylist()


def test_a_misspelt_head_is_named_before_anything_is_read(project: Project) -> None:
    with pytest.raises(InputError, match="heads: got 'logrge'.*did you mean 'logreg'"):
        train.main(project.write(), "tiny", "logrge")


def test_embeddings_of_another_manifest_are_refused(project: Project) -> None:
    run(project)
    prepare.main(project.write(seed=3))
    with pytest.raises(StateError, match="made for another manifest"):
        train.main(project.write(), "tiny", "logreg")


class TestAudit:
    def test_an_untouched_project_passes(self, project: Project) -> None:
        run(project)
        assert "are what reports/lineage.json says" in audit.main(project.write(), record=False)

    @pytest.mark.parametrize(
        "path",
        [
            "data/raw/red/03.png",
            "data/manifest.parquet",
            "data/manifest.json",
            "tiny.pth",
            "data/embeddings/tiny.h5",
            "data/embeddings/tiny.json",
            "curves/tiny.parquet",
            "curves/tiny.json",
            "survey/tiny.parquet",
            "survey/tiny.json",
            "data/thumbnails.webp",
            "data/thumbnails.parquet",
            "data/thumbnails.json",
            "models/tiny/logreg/model.skops",
            "models/tiny/logreg/run.json",
            "models/tiny/last/model.safetensors",
            "predictions/tiny/logreg.parquet",
            "metrics/tiny/last.json",
            "reports/verdict.json",
            "reports/scores.json",
            "reports/plots/scores.csv",
            "reports/index.html",
        ],
    )
    @pytest.mark.parametrize("damage", ["flip", "delete"])
    def test_every_altered_file_is_named(self, project: Project, path: str, damage: str) -> None:
        run(project)
        if damage == "delete":
            Path(path).unlink()
        else:
            content = bytearray(Path(path).read_bytes())
            content[len(content) // 2] ^= 1
            Path(path).write_bytes(content)
        with pytest.raises(CheckFailed) as caught:
            audit.main(project.write(), record=False)
        assert [finding.split(":")[0] for finding in caught.value.problems[:-1]] == [path]
        assert "1 of " in caught.value.problems[-1]

    def test_all_findings_are_gathered_and_sorted(self, project: Project) -> None:
        run(project)
        for path in ("reports/index.html", "data/raw/blue/01.png", "metrics/tiny/last.json"):
            Path(path).write_text("{}")
        with pytest.raises(CheckFailed) as caught:
            audit.main(project.write(), record=False)
        named = [finding.split(":")[0] for finding in caught.value.problems[:-1]]
        assert named == ["data/raw/blue/01.png", "metrics/tiny/last.json", "reports/index.html"]

    def test_recording_refuses_what_its_stamp_does_not_know(self, project: Project) -> None:
        run(project)
        Path("predictions/tiny/logreg.parquet").write_bytes(b"tampered")
        with pytest.raises(StateError, match=r"predictions/tiny/logreg.parquet: expected sha256 .* as stamped"):
            audit.main(project.write(), record=True)

    def test_recording_refuses_a_head_trained_on_other_embeddings(self, project: Project) -> None:
        run(project)
        stamp = runs.stamp_path("tiny", "logreg")
        content = json.loads(stamp.read_text())
        content["inputs"]["data/embeddings/tiny.h5"] = "0" * 64
        stamp.write_text(json.dumps(content))
        with pytest.raises(StateError, match="tiny.h5: expected sha256 0000"):
            audit.main(project.write(), record=True)

    def test_recording_refuses_a_verdict_on_runs_that_are_no_longer_listed(self, project: Project) -> None:
        run(project, run={"heads": ["logreg", "knn"]})
        params = project.write(run={"heads": ["knn"]})
        with pytest.raises(StateError, match="logreg.parquet: expected a file of a run listed in params"):
            audit.main(params, record=True)

    def test_an_altered_cost_is_found(self, project: Project) -> None:
        run(project)
        cost = matrix.cost_path("tiny")
        cost.write_text(cost.read_text().replace("36", "35"))
        with pytest.raises(StateError, match=r"tiny.cost.json: expected sha256"):
            audit.main(project.write(), record=True)
        with pytest.raises(CheckFailed, match=r"tiny.cost.json: expected sha256"):
            audit.main(project.write(), record=False)

    def test_a_pipe_in_an_images_place_is_a_finding_and_no_hang(self, project: Project) -> None:
        run(project)
        Path("data/raw/red/03.png").unlink()
        os.mkfifo("data/raw/red/03.png")
        with pytest.raises(CheckFailed, match="red/03.png: expected sha256 .* found no readable file"):
            audit.main(project.write(), record=False)

    @pytest.mark.parametrize("locator", ["package:evil.sub/x", "package:evil/../../x"])
    def test_a_locator_runs_no_code_and_leads_nowhere_else(
        self, project: Project, locator: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("evil/sub").mkdir(parents=True)
        Path("evil/__init__.py").write_text("open('executed', 'w')")
        monkeypatch.syspath_prepend(str(project.root))
        with pytest.raises(InputError, match="expected package:<top-level package>"):
            stamps.locate(locator)
        assert not Path("executed").exists()

    def test_the_chain_leads_from_the_report_back_to_weights_and_manifest(self, project: Project) -> None:
        run(project)
        nodes = lineage.read().nodes
        reached, todo = set(), ["reports/index.html"]
        while todo:
            name = todo.pop()
            reached.add(name)
            todo += nodes[name].made_from
        assert {"reports/verdict.json", "predictions/tiny/last.parquet", "data/embeddings/tiny.h5", "tiny.pth",
                "data/manifest.parquet"} <= reached  # fmt: skip

    def test_without_a_record_it_says_what_to_run(self, project: Project) -> None:
        with pytest.raises(StateError, match="run `dvc repro`"):
            audit.main(project.write(), record=False)


def test_adding_a_head_computes_no_forward_pass(project: Project, forwards: Callable[[], int]) -> None:
    run(project, run={"plans": []})
    before = forwards()
    run(project, run={"heads": ["logreg", "knn"], "plans": []})
    assert (before, forwards()) == (36, 36)


def test_heads_train_on_further_views_and_judge_the_images_as_they_are(project: Project) -> None:
    run(project)
    plain = runs.read("tiny", "logreg").predictions
    project.write(embed={"copies": 3, "augment": {"flips": "both", "crop": 0.6}})
    run(project)
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


def test_a_run_leaves_the_tables_that_dvc_plots(project: Project) -> None:
    run(project)
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


def test_costs_of_decisions_reach_the_verdict_and_rerun_no_head(project: Project) -> None:
    run(project, run={"plans": []})
    params = project.write(compare={"costs": {"blue": {"red": 0}, "green": {"red": 0}}})
    compare.main(params)
    (result,) = json.loads(verdict.VERDICT.read_text())["results"]
    assert {cell["decided"] for cell in result["detail"]["confusion"]} == {"red"}  # which costs nothing
    assert result["test"]["cost"]["value"] == 0


def test_embeddings_made_by_other_settings_are_refused(project: Project) -> None:
    run(project, run={"plans": []})
    content = {"tiny": {**project.content["backbones"]["tiny"], "image_size": 64, "pooling": "max"}}
    params = project.write(backbones=content, embed={"dtype": "float32"})
    with pytest.raises(StateError) as caught:
        train.main(params, "tiny", "logreg")
    assert caught.value.problems == (
        "data/embeddings/tiny.h5: pooling: got ['average'], expected ['max'] as in params.yaml; run `dvc repro`",
        "data/embeddings/tiny.h5: image_size: got 32, expected 64 as in params.yaml; run `dvc repro`",
        "data/embeddings/tiny.h5: dtype: got 'float16', expected 'float32' as in params.yaml; run `dvc repro`",
    )


def test_a_feature_that_is_not_a_number_is_named(project: Project) -> None:
    run(project, run={"plans": []})
    embedded = matrix.read("tiny")
    features = np.array(embedded.features)
    row = next(row for row, split in enumerate(manifest.read().split) if split == "train")
    features[row, 3] = np.nan
    rows = matrix.Rows(features.shape, features.dtype, embedded.recipe, [(np.arange(36), features)])
    path, stamp = matrix.matrix_path("tiny"), stamps.read(matrix.stamp_path("tiny"))
    matrix.write(path, embedded.sha256, embedded.image_id, embedded.manifest_sha256, rows)
    stamps.write(matrix.stamp_path("tiny"), dataclasses.replace(stamp, outputs=stamps.hashes([path])))
    with pytest.raises(InputError, match="heads.logreg: features: row 0: got NaN or infinity"):
        train.main(project.write(), "tiny", "logreg")
