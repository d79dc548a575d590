"""`headswap trace`: from any number, prediction, model, image or file to what it comes from, and what came of it."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.commands import trace as command
from pipeline.core import params, stamps
from pipeline.data import manifest
from pipeline.embeddings import matrix
from pipeline.evaluation import runs
from pipeline.evaluation.scoring import predictions
from pipeline.lineage import chain
from pipeline.lineage.trace.branch import Branch
from pipeline.lineage.trace.trace import trace
from pipeline.quality import files as findings
from pipeline.stages import embed, prepare, train
from pipeline.verdict import schema
from tests.conftest import REPOSITORY, Project
from tests.stages.spine import run, undrawn


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "project"


@pytest.fixture
def finished(project: Project, kept: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give every test a copy of one project whose stages have all run."""
    if kept.exists():
        shutil.copytree(kept, project.root, dirs_exist_ok=True)
        return project
    undrawn(monkeypatch)
    run(project)
    shutil.copytree(project.root, kept)
    return project


def lines(what: str) -> list[str]:
    return list(trace(params.load(), what).lines())


def beneath(what: str, heading: str) -> list[str]:
    """Return the lines right beneath a heading."""
    (found,) = [branch for branch in trace(params.load(), what).branches if branch.text == heading]
    return [branch.text for branch in found.branches]


def image_of(split: str) -> str:
    table = manifest.read()
    return table.image_id[table.split.index(split)]


def flip(path: str) -> None:
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2] ^= 1
    Path(path).write_bytes(content)


def refusal(what: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on stderr of a trace that ends with status 2."""
    assert main(["trace", what]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


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

    def test_what_was_found_about_an_image_is_told(self, finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        found = {"blank": {"title": "Blank images", "findings": [{"image_id": image_of("val")}]}}
        monkeypatch.setattr(findings, "read", lambda: found)
        assert "reports/quality.csv: Blank images" in lines(image_of("val"))
        assert "reports/quality.csv: Blank images" not in lines(image_of("test"))

    def test_what_dvc_knows_of_the_images_is_told(self, finished: Project) -> None:
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
        assert "went into: not known without reports/lineage.json; run `dvc repro`" in found

    def test_runs_of_one_commit_and_other_libraries_are_not_taken_for_the_same(self, finished: Project) -> None:
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

    def test_weights_that_are_elsewhere_are_said_to_be_unchecked(self, finished: Project) -> None:
        Path("tiny.pth").unlink()
        assert any("not on this machine" in line for line in lines("logreg"))


class TestForward:
    def test_a_file_leads_to_all_that_was_made_from_it(self, finished: Project) -> None:
        things = ["embeddings data/embeddings/tiny.h5", "run tiny/logreg", "run tiny/last", "report reports/index.html"]
        assert set(things) <= set(lines("tiny.pth"))
        assert "run tiny/logreg" not in lines("survey/tiny.parquet")

    def test_a_training_image_leads_to_its_row_and_the_models_that_learnt_from_it(self, finished: Project) -> None:
        image_id = image_of("train")
        row = list(matrix.read("tiny").image_id).index(image_id)
        assert beneath(image_id, "embedded by") == [f"tiny: row {row} of /features in data/embeddings/tiny.h5"]
        assert beneath(image_id, "trained on it")[:2] == ["tiny/logreg", "tiny/last"]
        assert "predictions of it" not in lines(image_id)

    def test_a_validation_image_was_chosen_with_and_not_trained_on(self, finished: Project) -> None:
        image_id = image_of("val")
        assert "trained on it" not in lines(image_id)
        assert beneath(image_id, "chosen with it") == [
            "tiny/logreg: whether it is the best head",
            "tiny/last: the epoch to keep, whether it is the best plan",
        ]

    def test_a_head_that_was_refitted_on_validation_images_was_trained_on_them(self, finished: Project) -> None:
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

    def test_a_skipped_image_and_further_views_are_told(self, project: Project) -> None:
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


class TestNames:
    def test_images_that_share_bytes_are_all_shown(self, project: Project) -> None:
        shutil.copy("data/raw/red/00.png", "data/raw/red/copy.png")
        prepare.main(project.write())
        found = lines(stamps.sha256_file(Path("data/raw/red/00.png"))[:8].upper())
        assert {"image red/00.png", "image red/copy.png"} <= set(found)
        assert beneath("red/00.png", "same bytes as") == ["red/copy.png"]

    def test_a_hash_that_several_images_begin_with_lists_them(
        self, project: Project, capsys: pytest.CaptureFixture[str]
    ) -> None:
        prepare.main(project.write())
        table = manifest.read()
        invented = ["abcdef01" + f"{row:02}" * 28 for row in range(len(table))]
        manifest.write(replace(table, sha256=invented), facts={})
        line = refusal("abcdef01", capsys)
        assert "with which several images' sha256 begin" in line
        assert "blue/00.png" in line

    def test_the_id_of_one_image_and_path_of_another_asks_for_a_sha256(
        self, project: Project, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.copytree("data/raw/blue", "data/raw/data/raw/red")
        prepare.main(project.write())
        line = refusal("data/raw/red/00.png", capsys)
        assert "the id of one image and the path of another; expected the sha256 of one: " in line
        for path in (Path("data/raw/data/raw/red/00.png"), Path("data/raw/red/00.png")):
            assert f"{stamps.sha256_file(path)} ({path})" in line

    def test_less_than_eight_digits_are_no_hash(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        prepare.main(project.write())
        assert "expected one of" in refusal(manifest.read().sha256[0][:7], capsys)

    def test_a_path_may_be_absolute(self, project: Project) -> None:
        prepare.main(project.write())
        assert lines(str(Path("data/raw/red/00.png").absolute()))[0] == "image red/00.png"

    @pytest.mark.parametrize(
        ("what", "expected"),
        [
            ("red/3.png", "did you mean 'red/03.png'?"),
            ("tiny/logrg", "did you mean 'tiny/logreg'?"),
            ("logreg:acuracy", "did you mean 'accuracy'?"),
            ("reports/verdit.json", "did you mean 'reports/verdict.json'?"),
        ],
    )
    def test_what_is_unknown_is_one_line_with_the_nearest(
        self, finished: Project, what: str, expected: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert expected in refusal(what, capsys)

    @pytest.mark.parametrize("what", ["logreg", "tiny/logreg", "models/tiny/logreg", "logreg:accuracy"])
    def test_a_run_that_left_the_list_is_told_what_brings_it_back(
        self, finished: Project, what: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        finished.write(run={"heads": ["knn"]})
        assert refusal(what, capsys) == (
            "headswap trace: WHAT: tiny/logreg: params.yaml does not list it, so add 'logreg' to run.heads before you "
            "run `dvc repro`"
        )

    @pytest.mark.parametrize(
        "what",
        [
            "",
            ".",
            "/",
            ":",
            "logreg:",
            ":accuracy",
            "logreg:accuracy:brier",
            "logreg:\udcff",
            "\udcff",
            "models/tiny/\udcff",
            "a\nb\x1b[2J",
            "a\0b",
            "-x",
            "x" * 10_000,
        ],
    )
    def test_whatever_names_nothing_is_one_line(
        self, finished: Project, what: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["trace", "--", what]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.isprintable()

    def test_a_training_image_has_no_prediction(self, finished: Project, capsys: pytest.CaptureFixture[str]) -> None:
        assert "got an image of split train, expected" in refusal(f"logreg:{image_of('train')}", capsys)

    def test_a_name_on_two_backbones_is_ambiguous(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        entry = project.content["backbones"]["tiny"]
        prepare.main(project.write(run={"backbones": ["tiny", "more"]}, backbones={"more": {**entry, "kind": "tiny"}}))
        assert "expected one of: tiny/logreg, more/logreg" in refusal("logreg", capsys)


@pytest.mark.parametrize(
    ("what", "altered"),
    [
        ("logreg", "data/manifest.parquet"),
        ("logreg", "data/embeddings/tiny.h5"),
        ("logreg", "tiny.pth"),
        ("logreg", "models/tiny/logreg/model.skops"),
        ("logreg", "predictions/tiny/logreg.parquet"),
        ("logreg", "metrics/tiny/logreg.json"),
        ("last:accuracy", "reports/verdict.json"),
        ("red/03.png", "data/raw/red/03.png"),
        ("red/03.png", "predictions/tiny/last.parquet"),
        ("reports/index.html", "reports/index.html"),
        ("reports/index.html", "curves/tiny.parquet"),
    ],
)
def test_what_was_altered_is_refused(
    finished: Project, what: str, altered: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(altered)
    assert f"headswap trace: {altered}: " in refusal(what, capsys)


@pytest.mark.parametrize("what", ["logreg", "logreg:accuracy"])
def test_facts_that_were_altered_are_refused(finished: Project, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = runs.stamp_path("tiny", "logreg")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7'))
    assert f"{path}: sha256: got" in refusal(what, capsys)


@pytest.mark.parametrize(
    ("what", "altered"),
    [
        *((what, Path("reports/verdict.json")) for what in ("test image", "logreg:accuracy")),
        *((what, runs.stamp_path("tiny", "logreg")) for what in ("test image", "logreg", "tiny.pth")),
        *(("test image", Path(path)) for path in ("data/manifest.json", "data/embeddings/tiny.json")),
        *(("test image", Path(path)) for path in ("curves/tiny.json", "data/thumbnails.json")),
        ("plots/tiny/logreg/confusion.csv", Path("plots/tiny/logreg/confusion.csv")),
    ],
)
def test_what_is_not_as_recorded_is_refused_though_it_can_be_read(
    finished: Project, what: str, altered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what = image_of("test") if what == "test image" else what
    altered.write_text(altered.read_text() + "\n")
    line = refusal(what, capsys)
    assert f"{altered}: sha256: got " in line
    assert "as recorded in reports/lineage.json; run `dvc repro`" in line


def test_a_run_on_embeddings_that_were_made_anew_is_refused(
    finished: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    embed.main(finished.write(embed={"dtype": "float32"}), "tiny")
    chain.LINEAGE.unlink()
    assert "models/tiny/logreg/run.json: made from data/embeddings/tiny.h5 with sha256" in refusal("logreg", capsys)


def test_a_class_with_markup_for_a_name_is_shown_as_it_is(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/raw/red").rename("data/raw/[red]x[bold]")
    prepare.main(project.write())
    assert main(["trace", "[red]x[bold]/03.png"]) == 0
    assert "label [red]x[bold]\n" in capsys.readouterr().out


def test_it_is_plain_and_a_line_each_when_not_on_a_terminal() -> None:
    sha256 = "0123456789abcdef" * 4
    deep = Branch("words " * 40, [Branch("more", [Branch(f"a name sha256 {sha256}")])])
    plain, folded = (command.rendered(deep, terminal=terminal) for terminal in (False, True))
    assert len(plain.splitlines()) == 3
    assert "\x1b" not in plain
    assert len(folded.splitlines()) > 3
    assert folded.count("words") == plain.count("words")
    assert sha256 in folded


def test_what_is_not_printable_cannot_steer_the_terminal() -> None:
    assert command.rendered(Branch("a\x1b[2Jb"), terminal=False) == r"a\x1b[2Jb"


def test_it_loads_no_torch(finished: Project) -> None:
    script = (
        "import os, sys, pipeline.cli as cli; assert cli.main(['trace', 'tiny/logreg']) == 0; "
        "assert cli.main(['trace', 'red/03.png']) == 0; os._exit('torch' in sys.modules)"  # as `headswap` ends
    )
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
