"""`headswap trace`: from any number, prediction, model, image or file to what it comes from, and what came of it."""

import json
from pathlib import Path

import pytest

from pipeline.core import stamps
from pipeline.data import manifest
from pipeline.embeddings import matrix
from pipeline.evaluation import runs
from pipeline.evaluation.scoring import predictions
from pipeline.lineage import chain
from pipeline.quality import files as findings
from pipeline.stages import embed, prepare, train
from pipeline.verdict import schema
from tests.commands.trace.reading import beneath, image_of, lines
from tests.conftest import Project


class TestBack:
    def test_a_metric_leads_to_settings_versions_machine_weights_and_images(self, finished: Project) -> None:
        found = "\n".join(lines("tiny/logreg:accuracy"))
        stamp = stamps.read(runs.stamp_path("tiny", "logreg"))
        made_with = stamp.facts["made_with"]
        for part in (
            f"models/tiny/logreg/model.skops sha256 {stamp.outputs['models/tiny/logreg/model.skops']}",
            f"settings: C={stamp.facts['params']['C']}, chosen from 2 candidates",
            "seed: 0",
            f"python: {made_with['python']}",
            f"scikit-learn {made_with['libraries']['scikit-learn']}",
            f"processor {made_with['machine']['processor']}",
            f"data/embeddings/tiny.h5 sha256 {stamps.sha256_file(Path('data/embeddings/tiny.h5'))}",
            f"weights tiny.pth sha256 {stamps.sha256_file(Path('tiny.pth'))}",
            "36 images in data/raw: 18 train, 6 val, 12 test",
            "report reports/index.html",
        ):
            assert part in found

    def test_quality_findings_of_an_image_are_listed(self, finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        found = {"blank": {"title": "Blank images", "findings": [{"image_id": image_of("val")}]}}
        monkeypatch.setattr(findings, "read", lambda: found)
        assert "reports/quality.csv: Blank images" in lines(image_of("val"))
        assert "reports/quality.csv: Blank images" not in lines(image_of("test"))

    def test_the_dvc_file_of_the_images_is_described(self, finished: Project) -> None:
        Path("data/raw.dvc").write_text(
            "deps:\n- path: s3://bucket/photos\nouts:\n- md5: 12ab.dir\n  nfiles: 36\n  path: raw\n"
        )
        told = lines("logreg")
        at = next(number for number, line in enumerate(told) if line.startswith("tracked by data/raw.dvc"))
        assert told[at] == "tracked by data/raw.dvc: md5 12ab.dir, 36 files"
        assert told[at + 1] == "imported from s3://bucket/photos"

    def test_a_metric_has_its_validation_value_and_its_test_value_with_interval(self, finished: Project) -> None:
        (result,) = [one for one in schema.read()["results"] if one["name"] == "last"]
        value, low, high = (result["test"]["brier"][name] for name in ("value", "low", "high"))
        found = lines("last:brier")
        assert f"validation: {result['validation']['brier']:.4f} on 6 images" in found
        assert f"test: {value:.4f}, 95% interval [{low:.4f}, {high:.4f}], on 12 images" in found

    def test_a_prediction_has_its_probabilities_its_model_and_its_image(self, finished: Project) -> None:
        image_id = image_of("test")
        table = predictions.read(Path("predictions/tiny/last.parquet"), stamps.read(runs.stamp_path("tiny", "last")))
        row = table.image_id.index(image_id)
        decided = table.classes[int(table.probability[row].argmax())]
        found = lines(f"last:{image_id}")
        assert found[0].startswith(f"prediction of {image_id} by tiny/last: {decided} (")
        assert f"label {table.label[row]}, split test" in found
        assert f"blue {table.probability[row, 0]:.4f}" in "".join(found)
        assert "plan tiny/last" in found
        assert f"data/raw/{image_id} sha256 {stamps.sha256_file(Path('data/raw', image_id))}" in found

    def test_a_commit_is_named_with_its_uncommitted_changes(self, finished: Project) -> None:
        chain.LINEAGE.unlink()
        path = runs.stamp_path("tiny", "logreg")
        content = json.loads(path.read_text())
        content["facts"]["made_with"] |= {"commit": "c" * 40, "uncommitted_changes": True}
        path.write_text(json.dumps(content))
        found = lines("tiny/logreg")
        assert f"code: commit {'c' * 40} with uncommitted changes" in found
        assert "used for: not known without reports/lineage.json; run `dvc repro`" in found

    def test_runs_of_one_commit_with_other_libraries_are_kept_apart(self, finished: Project) -> None:
        path = runs.stamp_path("tiny", "logreg")
        content = json.loads(path.read_text())
        content["facts"]["made_with"]["libraries"] = {"numpy": "1.0.other"}
        path.write_text(json.dumps(content))
        recorded = json.loads(chain.LINEAGE.read_text())
        recorded["nodes"][path.as_posix()]["sha256"] = stamps.sha256_file(path)
        chain.LINEAGE.write_text(json.dumps(recorded))
        assert sum(line.startswith("libraries: ") for line in lines("reports/verdict.json")) == 2

    @pytest.mark.parametrize(
        "what",
        ["tiny/logreg", "logreg", "models/tiny/logreg", "metrics/tiny/logreg.json", "predictions/tiny/logreg.parquet"],
    )
    def test_a_run_has_several_names(self, finished: Project, what: str) -> None:
        assert lines(what) == lines("tiny/logreg")
        assert lines(what)[0] == "head tiny/logreg"

    def test_missing_weights_are_reported_as_unchecked(self, finished: Project) -> None:
        Path("tiny.pth").unlink()
        assert any("not on this machine" in line for line in lines("logreg"))


class TestForward:
    def test_a_file_leads_to_all_that_was_made_from_it(self, finished: Project) -> None:
        things = ["embeddings data/embeddings/tiny.h5", "run tiny/logreg", "run tiny/last", "report reports/index.html"]
        assert set(things) <= set(lines("tiny.pth"))
        assert "run tiny/logreg" not in lines("survey/tiny.parquet")

    def test_the_page_is_made_of_the_verdict_and_not_of_what_is_made_beside_it(self, finished: Project) -> None:
        assert "scores reports/scores.json" in beneath("reports/verdict.json", "used for")
        assert lines("reports/scores.json")[0].startswith("scores reports/scores.json")
        for name in ("reports/scores.json", "reports/plots/scores.csv", "data/thumbnails.webp"):
            assert not [line for line in lines(name) if line.startswith(("plot ", "thumbnails ")) and name not in line]
        for name in ("reports/scores.json", "reports/plots/scores.csv"):
            assert "used for" not in lines(name)

    def test_a_training_image_leads_to_its_row_and_the_models_trained_on_it(self, finished: Project) -> None:
        image_id = image_of("train")
        row = list(matrix.read("tiny").image_id).index(image_id)
        assert beneath(image_id, "embedded by") == [f"tiny: row {row} of /features in data/embeddings/tiny.h5"]
        assert beneath(image_id, "trained on it")[:2] == ["tiny/logreg", "tiny/last"]
        assert "predictions of it" not in lines(image_id)

    def test_a_validation_image_is_listed_under_choices_and_not_under_training(self, finished: Project) -> None:
        image_id = image_of("val")
        assert "trained on it" not in lines(image_id)
        assert beneath(image_id, "chosen with it") == [
            "tiny/logreg: whether it is the best head",
            "tiny/last: the epoch to keep, whether it is the best plan",
        ]

    def test_a_head_refitted_on_validation_images_is_listed_under_training(self, finished: Project) -> None:
        chain.LINEAGE.unlink()
        settings = {"C": [0.1, 1.0], "search": "validation", "calibrate": "temperature"}
        train.main(finished.write(heads={"logreg": settings}), "tiny", "logreg")
        (trained,) = beneath(image_of("val"), "trained on it")
        assert trained.startswith("tiny/logreg: refitted on training and validation images")
        assert "its settings, its calibration, whether" in beneath(image_of("val"), "chosen with it")[0]

    def test_a_test_image_leads_to_every_prediction_right_or_wrong(self, finished: Project) -> None:
        for image_id, split in zip(manifest.read().image_id, manifest.read().split, strict=True):
            if split == "test":
                found = beneath(image_id, "predictions of it")
                for name, line in zip(("logreg", "last"), found, strict=False):
                    read = runs.read("tiny", name).predictions
                    row = list(read.image_id).index(image_id)
                    right = read.classes[read.decision()[row]] == read.label[row]
                    assert ("(right)" in line) == right
                    assert ("(wrong" in line) != right

    def test_a_skipped_image_and_augmented_views_are_described(self, project: Project) -> None:
        Path("data/raw/red/00.png").write_bytes(b"no image")
        settings = project.write(embed={"on_bad_image": "skip", "copies": 2})
        prepare.main(settings)
        embed.main(settings, "tiny")
        assert beneath("red/00.png", "embedded by")[0].startswith("tiny: skipped: ")
        embedded = matrix.read("tiny")
        row = list(embedded.image_id).index(image_of("train"))
        assert embedded.augmented is not None
        first, second = (place for place, of in enumerate(embedded.augmented.row) if of == row)
        assert f"further views in rows {first}, {second} of" in beneath(image_of("train"), "embedded by")[0]
