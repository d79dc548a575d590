"""`headswap predict`: images, models and tables that cannot be used."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline import cli
from pipeline.commands import predict
from pipeline.core import processes
from pipeline.core.errors import InputError, StateError
from pipeline.data import exclusions
from pipeline.embeddings.cache import EmbeddingCache
from tests import faults
from tests.commands.predict.tables import predicted
from tests.conftest import Project, write_image


def test_a_misspelt_model_is_named_with_the_nearest(project: Project) -> None:
    with pytest.raises(InputError, match="MODEL: got 'tiny/logrge', expected one of: .*did you mean 'tiny/logreg'"):
        predict.main(project.write(), "tiny/logrge", ["data/raw/red"])


def test_without_any_finished_run_it_says_what_to_run(project: Project) -> None:
    shutil.rmtree("models")
    with pytest.raises(InputError, match="^MODEL: got 'logreg', but no run is finished; run `dvc repro`$"):
        predict.main(project.write(), "logreg", ["data/raw/red"])


def test_bad_images_are_named_and_the_others_predicted(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.write()
    shutil.copytree("data/raw/red", "new")
    Path("new/bad.png").write_bytes(b"no image")
    Path("new/empty.png").touch()
    Path("new/.hidden.png").touch()
    Path("new/.hidden").mkdir()
    shutil.copy("new/00.png", "new/.hidden")
    Path("new/notes.txt").touch()
    os.mkfifo("new/pipe.png")
    Path("new/link").symlink_to("../data/raw/blue")
    Path("new/\n.png").touch()
    assert cli.main(["predict", "logreg", "new", "--out", "out.csv"]) == 0
    printed = capsys.readouterr()
    assert sorted(line for line in printed.err.splitlines() if line.startswith("skipped")) == sorted([
        "skipped: new/bad.png: not an image in one of the formats PNG, JPEG, BMP, GIF, TIFF, WEBP, PPM",
        "skipped: new/empty.png: 0 bytes",
        "skipped: new/pipe.png: not a regular file",
        "skipped: new/link: a link to a folder is not followed",
        "skipped: 'new/\\n.png': the name is not printable UTF-8; rename the file",
    ])  # fmt: skip
    assert "12 images" in printed.out
    assert "5 skipped" in printed.out


def test_no_usable_image_is_an_error(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.write()
    Path("new").mkdir()
    Path("new/bad.png").write_bytes(b"no image")
    assert cli.main(["predict", "logreg", "new", "--out", "out.csv"]) == 2
    assert "new/bad.png: not an image" in capsys.readouterr().err
    assert not Path("out.csv").exists()


def test_every_missing_path_is_named_before_anything_is_done(project: Project) -> None:
    with pytest.raises(InputError) as caught:
        predict.main(project.write(), "logreg", ["data/raw/red", "nowhere", "/dev/null", ""])
    assert caught.value.problems == (
        "nowhere: no such file or folder",
        "/dev/null: neither a file nor a folder",
        ": no such file or folder",
    )


@pytest.mark.parametrize(
    ("out", "line"),
    [
        ("out.txt", "--out: got 'out.txt', expected a name that ends in .csv, .json, .parquet"),
        ("no/out.csv", "--out: no/out.csv: no folder no"),
        ("folder.csv", "--out: folder.csv: is a folder"),
        ("data/excluded.csv", "--out: data/excluded.csv: lies where the pipeline keeps its own files"),
        ("data/raw/out.csv", "--out: data/raw/out.csv: lies among the images"),
    ],
)
def test_a_table_that_cannot_be_written_is_refused_at_once(project: Project, out: str, line: str) -> None:
    Path("folder.csv").mkdir()
    with pytest.raises(InputError, match=line):
        predict.main(project.write(), "nothing", ["nowhere"], out=out)


@pytest.mark.parametrize("name", ["models/tiny/logreg/model.skops", "predictions/tiny/logreg.parquet"])
def test_an_altered_model_is_refused(project: Project, name: str) -> None:
    content = Path(name).read_bytes()
    Path(name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StateError, match="as stamped"):
        predict.main(project.write(), "logreg", ["data/raw/red"])


def test_a_model_of_other_embeddings_is_refused(project: Project) -> None:
    from pipeline.stages import embed, prepare

    write_image(Path("data/raw/red/new.png"), "red", 100)
    prepare.main(project.write())
    embed.main(project.write(), "tiny")
    with pytest.raises(StateError, match=r"logreg/run.json: made from data/embeddings/tiny.h5 .*run `dvc repro`"):
        predict.main(project.write(), "logreg", ["data/raw/red"])


@pytest.mark.parametrize(("name", "section"), [("knn", "heads"), ("last", "plans")])
def test_the_advice_for_an_unlisted_model_helps(project: Project, name: str, section: str) -> None:
    from pipeline.stages import embed, finetune, prepare, train

    listed = project.content["run"]
    write_image(Path("data/raw/red/new.png"), "red", 100)
    left = project.write(run={section: [one for one in listed[section] if one != name]})
    prepare.main(left)
    embed.main(left, "tiny")
    with pytest.raises(StateError) as caught:
        predict.main(left, name, ["data/raw/red"])
    expected = f"tiny/{name}: params.yaml does not list it, so add {name!r} to run.{section} before you run `dvc repro`"
    assert caught.value.problems[-1] == expected

    again = project.write(run=listed)
    (train if section == "heads" else finetune).main(again, "tiny", name)
    assert "13 images" in predict.main(again, name, ["data/raw/red"], out="out.csv")


def test_an_unlisted_model_predicts_while_nothing_else_changed(project: Project) -> None:
    assert "12 images" in predict.main(project.write(run={"heads": ["logreg"]}), "knn", ["data/raw/red"], out="out.csv")


def test_a_forgotten_image_is_not_read(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.core.stamps import sha256_file

    for number in range(2):
        write_image(Path(f"new/{number}.png"), "red", 100 + number)
    exclusions.add([sha256_file(Path("new/0.png"))], exclusions.FORGOTTEN)
    assert predicted(project.write(), "logreg", "new")["path"] == ["new/1.png"]
    assert "new/0.png: forgotten: see data/excluded.csv" in capsys.readouterr().err


def test_a_row_is_not_put_back_while_it_is_forgotten(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(Path("new/0.png"), "red", 100)
    with processes.alone(processes.EMBED_LOCK, "me"), pytest.raises(StateError, match="forget` is at work"):
        predict.main(project.write(), "logreg", ["new"])
    with processes.alone(processes.EMBED_LOCK, "me"):  # of known images no row is written
        predict.main(project.write(), "logreg", ["data/raw/red"], out="out.csv")


def test_an_image_that_changes_meanwhile_is_skipped(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write_image(Path(f"new/{number}.png"), "red", 100 + number)
    real = EmbeddingCache.missing

    def missing(self: EmbeddingCache, keys: np.ndarray) -> np.ndarray:
        write_image(Path("new/1.png"), "blue", 7)
        return real(self, keys)

    monkeypatch.setattr(EmbeddingCache, "missing", missing)
    assert predicted(project.write(), "logreg", "new")["path"] == ["new/0.png", "new/2.png"]


def test_a_write_that_fails_leaves_the_old_table_or_the_new_one(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = project.write()
    write_image(Path("new/0.png"), "red", 100)
    predict.main(params, "knn", ["new"], out="out.csv")
    old = Path("out.csv").read_bytes()
    for number in range(1, 12):
        write_image(Path("new/1.png"), "red", 100 + number)
        with monkeypatch.context() as patch:
            failed = faults.fail_the_nth(number, patch)
            try:
                predict.main(params, "logreg", ["new"], out="out.csv")
            except (OSError, StateError):
                assert failed
        if not failed:
            break
        found = Path("out.csv").read_bytes()
        assert found == old or len(found.splitlines()) == 3  # a folder may fail to sync after the table is in place
        assert not list(Path().glob(".out.csv*"))
    else:
        pytest.fail("it never came through")
    assert Path("out.csv").read_bytes() != old
