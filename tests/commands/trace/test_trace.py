"""`headswap trace`: altered files are refused; how the tree is printed."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.commands import trace as command
from pipeline.evaluation import runs
from pipeline.lineage import chain
from pipeline.lineage.trace.branch import Branch
from pipeline.stages import embed, prepare
from tests.commands.trace.reading import flip, image_of, refusal
from tests.conftest import REPOSITORY, Project


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
def test_an_altered_file_is_refused(
    finished: Project, what: str, altered: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(altered)
    assert f"headswap trace: {altered}: " in refusal(what, capsys)


@pytest.mark.parametrize("what", ["logreg", "logreg:accuracy"])
def test_altered_facts_are_refused(finished: Project, what: str, capsys: pytest.CaptureFixture[str]) -> None:
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
def test_a_file_that_differs_from_the_record_is_refused_even_if_readable(
    finished: Project, what: str, altered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what = image_of("test") if what == "test image" else what
    altered.write_text(altered.read_text() + "\n")
    line = refusal(what, capsys)
    assert f"{altered}: sha256: got " in line
    assert f"as recorded in reports/lineage.json; delete it, then: dvc checkout {altered}" in line


def test_a_run_on_replaced_embeddings_is_refused(finished: Project, capsys: pytest.CaptureFixture[str]) -> None:
    embed.main(finished.write(embed={"dtype": "float32"}), "tiny")
    chain.LINEAGE.unlink()
    assert "models/tiny/logreg/run.json: made from data/embeddings/tiny.h5 with sha256" in refusal("logreg", capsys)


def test_a_class_with_markup_for_a_name_is_shown_as_it_is(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/raw/red").rename("data/raw/[red]x[bold]")
    prepare.main(project.write())
    assert main(["trace", "[red]x[bold]/03.png"]) == 0
    assert "label [red]x[bold]\n" in capsys.readouterr().out


def test_the_tree_has_one_plain_line_per_branch_when_not_on_a_terminal() -> None:
    sha256 = "0123456789abcdef" * 4
    deep = Branch("words " * 40, [Branch("more", [Branch(f"a name sha256 {sha256}")])])
    plain, folded = (command.rendered(deep, terminal=terminal) for terminal in (False, True))
    assert len(plain.splitlines()) == 3
    assert "\x1b" not in plain
    assert len(folded.splitlines()) > 3
    assert folded.count("words") == plain.count("words")
    assert sha256 in folded


def test_unprintable_characters_are_escaped() -> None:
    assert command.rendered(Branch("a\x1b[2Jb"), terminal=False) == r"a\x1b[2Jb"


def test_it_loads_no_torch(finished: Project) -> None:
    script = (
        "import os, sys, pipeline.cli as cli; assert cli.main(['trace', 'tiny/logreg']) == 0; "
        "assert cli.main(['trace', 'red/03.png']) == 0; os._exit('torch' in sys.modules)"  # as `headswap` ends
    )
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
