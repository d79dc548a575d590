"""predict: any images, by any run, into a table."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pipeline import cli, heads
from pipeline.commands import predict
from pipeline.core import processes
from pipeline.core.errors import InputError, StateError
from pipeline.core.params import Params
from pipeline.data import exclusions, manifest
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.evaluation import runs
from pipeline.evaluation.scoring.predictions import Predictions
from tests import faults
from tests.conftest import CLASSES, Project, lay_out, write_image
from tests.heads.examples import QUICK, fit
from tests.stages.spine import run, working_in

TOLERANCE = 2e-3
"""Between a plan's stored predictions, whose frozen part was kept in half precision, and the whole network's."""


@pytest.fixture(scope="module")
def spine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a project in which a head and a plan are trained; tests work in copies."""
    with working_in(tmp_path_factory.mktemp("spine")) as root:
        project = lay_out(root, 12)
        entries = {"logreg": {"C": 1.0, "calibrate": "temperature"}, "knn": {"n_neighbors": 3}}
        run(project, heads=entries, run={"heads": ["logreg", "knn"]})
        yield root


@pytest.fixture
def project(spine: Path, project: Project) -> Project:
    """Put what was trained into the test's own folder."""
    shutil.copytree(spine, project.root, dirs_exist_ok=True)
    project.content["heads"] = {"logreg": {"C": 1.0, "calibrate": "temperature"}, "knn": {"n_neighbors": 3}}
    project.content["run"] = {**project.content["run"], "heads": ["logreg", "knn"]}
    project.write()
    return project


def table(path: str) -> dict[str, list]:
    return {
        ".parquet": lambda: pq.read_table(path).to_pydict(),
        ".csv": lambda: pyarrow.csv.read_csv(path).to_pydict(),
        ".json": lambda: {name: [row[name] for row in json.loads(Path(path).read_text())] for name in columns()},
    }[Path(path).suffix]()


def columns() -> list[str]:
    return ["path", "label", *(f"p_{name}" for name in CLASSES), "distance", "percentile", "unlike"]


def predicted(params: Params, model: str, *paths: str) -> dict[str, list]:
    predict.main(params, model, list(paths), out="out.parquet")
    return table("out.parquet")


def stored(name: str) -> tuple[list[str], Predictions]:
    """Return the paths of the test images, and what the run said of them."""
    found = runs.read("tiny", name).predictions.of("test")
    listed = manifest.read()
    return [listed.path[listed.row_of()[image_id]] for image_id in found.image_id], found


def probabilities(found: dict[str, list]) -> np.ndarray:
    return np.column_stack([found[f"p_{name}"] for name in CLASSES])


def same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=heads.SAME)


@pytest.mark.processors
@pytest.mark.parametrize("name", ["logreg", "knn"])
def test_a_head_says_the_same_of_the_test_images(project: Project, name: str) -> None:
    paths, expected = stored(name)
    found = predicted(project.write(), name, *paths)
    assert found["path"] == paths
    same(probabilities(found), expected.probability)
    assert found["label"] == [CLASSES[number] for number in expected.decision()]


@pytest.mark.processors
def test_what_is_said_of_an_image_depends_on_no_other(project: Project) -> None:
    paths, expected = stored("logreg")
    for number in (0, len(paths) - 1):
        found = predicted(project.write(), "logreg", paths[number])
        same(probabilities(found), expected.probability[[number]])


def test_they_are_the_same_when_the_cache_is_gone(project: Project) -> None:
    paths, expected = stored("logreg")
    shutil.rmtree(".headswap/embeddings")
    found = predicted(project.write(), "logreg", *paths)
    same(probabilities(found), expected.probability)


def test_a_plan_says_nearly_the_same_of_the_test_images(project: Project) -> None:
    paths, expected = stored("last")
    found = predicted(project.write(), "tiny/last", *paths)
    np.testing.assert_allclose(probabilities(found), expected.probability, atol=TOLERANCE)


@pytest.mark.parametrize("model", ["logreg", "tiny/logreg", "models/tiny/logreg", "./models/tiny/logreg/"])
def test_a_model_has_several_names(project: Project, model: str) -> None:
    assert len(predicted(project.write(), model, "data/raw/red")["path"]) == 12


def test_a_misspelt_model_is_named_with_the_nearest(project: Project) -> None:
    with pytest.raises(InputError, match="MODEL: got 'tiny/logrge', expected one of: .*did you mean 'tiny/logreg'"):
        predict.main(project.write(), "tiny/logrge", ["data/raw/red"])


def test_without_any_finished_run_that_is_said(project: Project) -> None:
    shutil.rmtree("models")
    with pytest.raises(InputError, match="^MODEL: got 'logreg', but no run is finished; run `dvc repro`$"):
        predict.main(project.write(), "logreg", ["data/raw/red"])


@pytest.mark.parametrize("name", ["logreg", "last"])
def test_new_images_go_through_the_cnn_once(project: Project, forwards: Callable[[], int], name: str) -> None:
    params = project.write()
    for number in range(5):
        write_image(Path(f"new/{number}.png"), "red", 100 + number)
    shutil.copy("new/0.png", "new/again.png")
    found = predicted(params, name, "new", "new/1.png")
    assert found["path"] == [f"new/{stem}.png" for stem in (*range(5), "again")]
    assert found["p_red"][0] == found["p_red"][-1]
    assert forwards() == (5 if name == "logreg" else 10)
    again = predicted(params, name, "new")
    assert forwards() == (5 if name == "logreg" else 15)
    assert again == found


def test_the_summary_says_how_many_images_each_network_saw(project: Project) -> None:
    for number in range(5):
        write_image(Path(f"new/{number}.png"), "red", 100 + number)
    shutil.copy("new/0.png", "new/again.png")

    def said(name: str) -> str:
        return predict.main(project.write(), name, ["new"], out="out.csv").split("; ")[3]

    assert said("last") == "5 went through the fine-tuned CNN, 5 through the frozen one"
    assert said("last") == "5 went through the fine-tuned CNN, 0 through the frozen one"
    assert said("logreg") == "0 went through the CNN"


def test_rows_of_new_images_stand_in_the_cache_that_embed_reads(project: Project) -> None:
    write_image(Path("data/raw/red/new.png"), "red", 100)
    assert "1 went through the CNN" in predict.main(project.write(), "logreg", ["data/raw/red"], out="out.csv")
    from pipeline.stages import embed, prepare

    prepare.main(project.write())
    assert "0 computed" in embed.main(project.write(), "tiny")


def test_an_image_unlike_the_training_images_is_flagged_and_a_training_image_is_not(project: Project) -> None:
    from PIL import Image

    Image.new("RGB", (64, 40), "white").save("white.png")
    listed = manifest.read()
    train = [path for path, split in zip(listed.path, listed.split, strict=True) if split == "train"]
    found = predicted(project.write(), "logreg", "white.png", *train)
    assert found["unlike"] == [True] + [False] * len(train)
    assert found["percentile"][0] == 100
    assert max(found["distance"][1:]) < 1e-6 < found["distance"][0]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_the_suffix_decides_the_kind_of_table(project: Project, suffix: str) -> None:
    summary = predict.main(project.write(), "logreg", ["data/raw/red"], out=f"out{suffix}")
    found = table(f"out{suffix}")
    assert list(found) == columns()
    assert found == predicted(project.write(), "logreg", "data/raw/red")
    assert summary.startswith(f"out{suffix}: 12 images: ")
    assert summary.endswith("probabilities are calibrated on validation images by temperature")


def test_without_a_file_the_table_is_printed_and_the_summary_stands_apart(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write()
    assert cli.main(["predict", "knn", "data/raw/red/00.png"]) == 0
    printed = capsys.readouterr()
    head, row = printed.out.splitlines()
    assert head == ",".join(columns())
    assert row.startswith("data/raw/red/00.png,")
    assert "probabilities are the head's own, not calibrated (heads.knn.calibrate)" in printed.err


def test_the_rule_of_decision_is_the_comparisons(project: Project) -> None:
    params = project.write(compare={"costs": {"red": {"blue": 1e30, "green": 1e30}}})
    assert set(predicted(params, "logreg", "data/raw")["label"]) == {"red"}


def test_bad_images_are_named_and_the_others_predicted(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.write()
    shutil.copytree("data/raw/red", "new")
    Path("new/bad.png").write_bytes(b"no image")
    Path("new/empty.png").touch()
    Path("new/.hidden.png").touch()
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


def test_none_that_can_be_used_is_an_error(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.write()
    Path("new").mkdir()
    Path("new/bad.png").write_bytes(b"no image")
    assert cli.main(["predict", "logreg", "new", "--out", "out.csv"]) == 2
    assert "new/bad.png: not an image" in capsys.readouterr().err
    assert not Path("out.csv").exists()


def test_every_path_that_leads_nowhere_is_named_before_anything_is_done(project: Project) -> None:
    with pytest.raises(InputError) as caught:
        predict.main(project.write(), "logreg", ["data/raw/red", "nowhere", "/dev/null", ""])
    assert caught.value.problems == (
        "nowhere: no such file or folder",
        "/dev/null: neither a file nor a folder",
        ": no such file or folder",
    )


def test_a_named_file_counts_whatever_its_suffix(project: Project) -> None:
    shutil.copy("data/raw/red/00.png", "picture.dat")
    assert predicted(project.write(), "logreg", "picture.dat")["path"] == ["picture.dat"]


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
def test_a_table_that_cannot_be_written_is_refused_first(project: Project, out: str, line: str) -> None:
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
def test_the_advice_for_a_model_that_left_the_list_helps(project: Project, name: str, section: str) -> None:
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


def test_a_model_that_left_the_list_answers_while_nothing_else_changed(project: Project) -> None:
    assert "12 images" in predict.main(project.write(run={"heads": ["logreg"]}), "knn", ["data/raw/red"], out="out.csv")


def test_a_forgotten_image_is_not_looked_at(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
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


@pytest.mark.processors
@pytest.mark.parametrize("name", list(heads.HEADS))
def test_no_heads_word_on_a_row_depends_on_the_others(name: str) -> None:
    generator = np.random.default_rng(0)
    y = np.array(["a", "b", "c"])[np.arange(90) % 3]
    X = generator.normal(size=(90, 160)).astype(np.float32) + (y == "a")[:, None]
    model = fit(name, {**QUICK.get(name, {}), "calibrate": "temperature"}, X, y).model
    rows = generator.normal(size=(heads.predicting.BLOCK + 45, 160)).astype(np.float16).astype(np.float32)
    together = heads.predict(model, rows)
    order = generator.permutation(len(rows))
    same(heads.predict(model, rows[order]), together[order])
    for some in ([3], [300], order[:37], order[:257]):
        same(heads.predict(model, rows[some]), together[some])
