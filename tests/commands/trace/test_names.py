"""`headswap trace`: the names of images, runs and files."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.core import stamps
from pipeline.data import exclusions, manifest
from pipeline.stages import prepare
from tests.commands.trace.reading import beneath, image_of, lines, refusal
from tests.conftest import Project, write_image


class TestNames:
    def test_images_that_share_bytes_are_all_shown(self, project: Project) -> None:
        shutil.copy("data/raw/red/00.png", "data/raw/red/copy.png")
        prepare.main(project.write())
        found = lines(stamps.sha256_file(Path("data/raw/red/00.png"))[:8].upper())
        assert {"image red/00.png", "image red/copy.png"} <= set(found)
        assert beneath("red/00.png", "same bytes as") == ["red/copy.png"]

    def test_an_ambiguous_hash_lists_its_images(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
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

    def test_fewer_than_eight_digits_are_no_hash(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        prepare.main(project.write())
        assert "expected one of" in refusal(manifest.read().sha256[0][:7], capsys)

    def test_eight_digits_of_an_excluded_image_say_so_and_fewer_do_not(
        self, project: Project, capsys: pytest.CaptureFixture[str]
    ) -> None:
        prepare.main(project.write())
        sha256 = manifest.read().sha256[0]
        exclusions.add([sha256], "blurred")
        prepare.main(project.write())
        for digits in (sha256, sha256[:8]):
            assert refusal(digits, capsys).endswith("left out by data/excluded.csv: blurred")
        assert "expected one of" in refusal(sha256[:7], capsys)

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
    def test_an_unknown_name_is_one_line_with_the_nearest(
        self, finished: Project, what: str, expected: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert expected in refusal(what, capsys)

    @pytest.mark.parametrize(("name", "hint"), [("new.png", ""), ("03.png", "; did you mean 'blue/03.png'?")])
    def test_an_image_that_is_not_in_the_data_is_referred_to_predict(
        self, finished: Project, tmp_path_factory: pytest.TempPathFactory, name: str, hint: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        new = tmp_path_factory.mktemp("elsewhere") / name
        write_image(new, "red", 99)
        said = "is not an image of this project; `headswap predict` classifies new ones"
        assert refusal(str(new), capsys) == f"headswap trace: WHAT: {new}: {said}{hint}"

    @pytest.mark.parametrize("what", ["logreg", "tiny/logreg", "models/tiny/logreg", "logreg:accuracy"])
    def test_an_unlisted_run_is_an_error_that_says_how_to_list_it(
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
    def test_a_name_of_nothing_is_one_line(
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
