"""The verdict, its files for DVC, and two runs beside each other."""

import csv
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.commands import report
from pipeline.core.artifacts import REPORT_PLOTS
from pipeline.core.cost import Cost
from pipeline.core.errors import InputError, StateError
from pipeline.evaluation import runs
from pipeline.evaluation.scoring import metrics
from pipeline.stages import compare, quality, train
from pipeline.verdict import schema
from tests.conftest import Project, write_image
from tests.stages.spine import run


def test_the_best_head_is_the_one_with_the_best_validation_score_whatever_the_test_says(project: Project) -> None:
    run(project, run={"heads": ["logreg", "knn"], "plans": []})
    for name, good_split in (("logreg", "val"), ("knn", "test")):
        one = runs.read("tiny", name)
        truth = np.eye(3)[one.predictions.truth()]
        good = (np.array(one.predictions.split) == good_split)[:, None]
        probability = np.where(good, truth, np.roll(truth, 1, axis=1))
        predictions = dataclasses.replace(one.predictions, probability=probability)
        files = [runs.folder("tiny", name) / "model.skops"]
        runs.record("tiny", name, "head", runs.RunResult(predictions, files, Cost()), {}, one.stamp.facts)
    compare.main(project.write())
    judged = json.loads(schema.VERDICT.read_text())
    assert judged["best_head"] == "tiny/logreg"
    assert judged["results"][1]["test"]["accuracy"]["value"] == 1.0


def test_the_verdict_has_every_run_with_intervals_differences_and_cost(finished: Project) -> None:
    params = finished.write(run={"heads": ["logreg", "knn"]})
    train.main(params, "tiny", "knn")
    compare.main(params)
    judged = json.loads(schema.VERDICT.read_text())
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
    assert all(0 <= pair["p"] <= pair["holm_p"] <= 1 for pair in judged["pairs"])


def test_a_run_that_is_no_longer_listed_leaves_the_verdict(finished: Project) -> None:
    params = finished.write(run={"heads": ["logreg", "knn"]})
    train.main(params, "tiny", "knn")
    compare.main(params)
    assert "tiny/knn" in schema.VERDICT.read_text()
    compare.main(finished.write(run={"heads": ["logreg"]}))
    judged = json.loads(schema.VERDICT.read_text())
    assert [result["name"] for result in judged["results"]] == ["logreg", "last"]


def test_the_verdict_has_scores_by_number_of_labels_and_where_a_plan_gets_ahead(project: Project) -> None:
    judged = run(project, curve={"plans": ["last"]})
    found = judged["curves"]["tiny"]
    assert [one["labels"] for one in found["reached"]["last"]] == [9, 18]
    assert [one["plan"] for one in found["crossovers"]] == ["last"]
    assert {"curves/tiny.parquet", "curves/tiny.json"} <= judged["inputs"].keys()
    assert "What more labels bring" in schema.PAGE.read_text()


def test_a_single_run_is_reported_with_nothing_to_compare(project: Project) -> None:
    judged = run(project, run={"plans": []})
    assert judged["answer"] == "cannot tell"
    assert "It is the only run" in judged["sentence"]
    page = schema.PAGE.read_text()
    assert judged["sentence"] in page
    assert "Without a fine-tuned plan there is nothing to decide" in page


def test_two_runs_are_compared_in_the_terminal_and_nothing_is_written(finished: Project) -> None:
    judged = json.loads(schema.VERDICT.read_text())
    before = {path: path.stat().st_mtime_ns for path in Path("reports").rglob("*")}
    table = compare.main(finished.write(), ["logreg", "tiny/last"])
    assert {path: path.stat().st_mtime_ns for path in Path("reports").rglob("*")} == before
    (pair,) = judged["pairs"]
    lines = {line.split("  ")[0]: line for line in table.splitlines()}
    assert all(
        f"{100 * result['test']['accuracy']['value']:.1f} [" in lines["accuracy"] for result in judged["results"]
    )
    assert (pair["first"], pair["second"]) == ("tiny/logreg", "tiny/last")
    gain = pair["difference"]
    assert "first - second" in table
    assert f"{100 * gain['value']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]" in lines["accuracy"]
    assert f"McNemar p {pair['p']:.3g}" in lines["alone right on"]
    assert set(metrics.METRICS) <= set(lines)
    first, second = (result["cost"]["cpu_seconds"] for result in judged["results"])
    assert lines["CPU time"].endswith(f"x {first / second:.2f}")


def test_a_run_without_a_metric_that_was_added_since_is_refused_with_advice(
    finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(metrics.METRICS, "added", metrics.METRICS["accuracy"])  # type: ignore[arg-type]
    with pytest.raises(StateError, match=r"metrics/tiny/logreg.json: lacks added; run `dvc repro`"):
        compare.main(finished.write())


def test_two_runs_on_different_test_images_are_refused_with_advice_for_one_that_left(project: Project) -> None:
    run(project, run={"heads": ["logreg", "knn"], "plans": []})
    for number in range(6):
        write_image(Path(f"data/raw/red/new{number}.png"), "red", 100 + number)
    run(project, run={"heads": ["logreg"]})
    with pytest.raises(StateError) as caught:
        compare.main(project.write(), ["logreg", "knn"])
    assert "different test images" in caught.value.problems[0]
    assert caught.value.problems[1:] == (
        "tiny/knn: params.yaml does not list it, so add 'knn' to run.heads before you run `dvc repro`",
    )


def test_the_verdict_is_repeated_with_what_became_of_its_runs_since(project: Project) -> None:
    run(project, run={"heads": ["logreg", "knn"], "plans": []})
    params = project.write(run={"heads": ["logreg", "rbf_svm", "lda"]}, heads={"rbf_svm": {}, "lda": {}, "logreg": {}})
    for name in ("logreg", "rbf_svm"):
        train.main(params, "tiny", name)
    said = report.main(params, open=False)
    assert said.splitlines()[0].endswith(
        "(since then: tiny/logreg made anew; tiny/rbf_svm not judged yet; tiny/knn no longer listed; run `dvc repro`)"
    )
    train.main(params, "tiny", "lda")
    compare.main(params)
    assert "since then" not in report.main(params, open=False)


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
    finished: Project, named: list[str], words: str
) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        compare.main(finished.write(), named)


def test_scores_for_dvc_are_the_verdicts_and_repeat(finished: Project) -> None:
    judged = json.loads(schema.VERDICT.read_text())
    scores = schema.SCORES.read_bytes()
    content = json.loads(scores)
    for result in judged["results"]:
        assert content["test"][f"tiny/{result['name']}"] == result["test"]["accuracy"]["value"]
    assert content["to_best_head"] == {"tiny/last": -judged["pairs"][0]["difference"]["value"]}
    assert content["transferability"]["tiny"]["knn_accuracy"] == judged["transferability"]["tiny"]["knn_accuracy"]
    run(finished)
    assert schema.SCORES.read_bytes() == scores


def test_tables_for_dvc_hold_the_verdicts_numbers(finished: Project) -> None:
    judged = json.loads(schema.VERDICT.read_text())
    with REPORT_PLOTS["scores"].at().open() as stream:
        rows = list(csv.DictReader(stream))
    expected = [{"run": f"tiny/{one['name']}", **one["test"]["accuracy"]} for one in judged["results"]]
    assert [{**row, **{name: float(row[name]) for name in ("value", "low", "high")}} for row in rows] == expected
    assert sorted(path.stem for path in REPORT_PLOTS["scores"].at().parent.iterdir()) == [
        "cost",
        "differences",
        "label_efficiency",
        "scores",
    ]


def leak(project: Project) -> None:
    """Let splits share a group, and a larger copy of an image in another one."""
    rows = ["path,label,split,group"]
    for path in project.images:
        number = int(path.stem)
        split = "train" if number < 7 or number == 11 else "val" if number < 9 else "test"
        rows.append(f"{path.parent.name}/{path.name},{path.parent.name},{split},{path.parent.name}{min(number, 10)}")
    with Image.open(project.images[0]) as image:
        image.resize((48, 54)).save("data/raw/larger.png")
    rows += ["larger.png,blue,test,blue20"]
    Path("data/raw/labels.csv").write_text("\n".join(rows))


def test_leaks_stand_beside_the_answer_with_their_size_and_the_commands_named_remove_them(project: Project) -> None:
    leak(project)
    judged = run(project, data={"source": "csv_file"}, split={"method": "predefined"}, run={"plans": []})
    both, alike, groups = judged["notes"]
    assert both.startswith("In all, 57% of the test images (4 of 7) share bytes, pixels or a group ")
    assert alike.startswith(
        "1 pair of images with nearly the same pixels is in different splits and affects 14% of the test images "
        "(1 of 7)"
    )
    assert groups.startswith("3 groups span several splits and affect 43% of the test images (3 of 7): ")
    said = compare.main(project.write())
    assert [line.removeprefix("note: ") for line in said.splitlines()[1:]] == judged["notes"]
    assert report.main(project.write(), open=False).splitlines()[1:] == said.splitlines()[1:]
    head, *notes = report.main(project.write(run={"heads": ["knn"]}), open=False).splitlines()
    assert head.endswith("(since then: tiny/logreg no longer listed; run `dvc repro`)")
    assert notes == said.splitlines()[1:]
    project.write(run={"heads": ["logreg"]})
    head = schema.PAGE.read_text().split("</header>")[0]
    assert all(note.split("`")[0] in head for note in judged["notes"])
    scores = json.loads(schema.SCORES.read_text())["data"]
    assert scores == judged["data"]
    assert (scores["pairs_across_splits"], scores["groups_across_splits"]) == (1, 3)
    assert scores["test_images_touched"] == pytest.approx(4 / 7, abs=1e-6)

    assert quality.main(project.write(), exclude_copies=True).startswith("1 images added to data/excluded.csv")
    judged = run(project, split={"method": "grouped"})
    assert not [note for note in judged["notes"] if "across splits" in note]
    assert judged["data"]["test_images_touched"] == 0


def test_the_report_says_where_the_page_is_and_shows_it_if_asked(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: shown.append(url) or True)  # type: ignore[func-returns-value]
    with pytest.raises(StateError, match="run `dvc repro`"):
        report.main(project.write(), open=False)
    judged = run(project)
    assert report.main(project.write(), open=False) == f"{judged['sentence']} See {schema.PAGE.resolve()}"
    assert shown == []
    report.main(project.write(), open=True)
    assert shown == [schema.PAGE.resolve().as_uri()]
    monkeypatch.setattr("webbrowser.open", lambda _: False)
    with pytest.raises(StateError, match="no browser was found"):
        report.main(project.write(), open=True)


def test_a_verdict_of_another_version_is_refused(finished: Project) -> None:
    schema.VERDICT.write_text('{"schema_version": 3}')
    with pytest.raises(StateError, match="schema_version: got 3, expected 5"):
        schema.read()


def test_costs_of_decisions_reach_the_verdict_and_rerun_no_head(finished: Project) -> None:
    params = finished.write(run={"plans": []}, compare={"costs": {"blue": {"red": 0}, "green": {"red": 0}}})
    compare.main(params)
    (result,) = json.loads(schema.VERDICT.read_text())["results"]
    assert {cell["decided"] for cell in result["detail"]["confusion"]} == {"red"}  # which costs nothing
    assert result["test"]["cost"]["value"] == 0
