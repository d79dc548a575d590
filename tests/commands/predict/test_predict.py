"""`headswap predict`: the numbers of a run for any images, in a table."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline import cli
from pipeline.commands import predict
from pipeline.data import manifest
from tests.commands.predict.tables import TOLERANCE, columns, predicted, probabilities, same, stored, table
from tests.conftest import CLASSES, Project, write_image


@pytest.mark.processors
@pytest.mark.parametrize("name", ["logreg", "knn"])
def test_a_head_gives_the_test_images_their_stored_predictions(project: Project, name: str) -> None:
    paths, expected = stored(name)
    found = predicted(project.write(), name, *paths)
    assert found["path"] == paths
    same(probabilities(found), expected.probability)
    assert found["label"] == [CLASSES[number] for number in expected.decision()]


@pytest.mark.processors
def test_a_prediction_does_not_depend_on_other_images(project: Project) -> None:
    paths, expected = stored("logreg")
    for number in (0, len(paths) - 1):
        found = predicted(project.write(), "logreg", paths[number])
        same(probabilities(found), expected.probability[[number]])


def test_predictions_are_the_same_without_the_cache(project: Project) -> None:
    paths, expected = stored("logreg")
    shutil.rmtree(".headswap/embeddings")
    found = predicted(project.write(), "logreg", *paths)
    same(probabilities(found), expected.probability)


def test_a_plan_gives_the_test_images_nearly_their_stored_predictions(project: Project) -> None:
    paths, expected = stored("last")
    found = predicted(project.write(), "tiny/last", *paths)
    np.testing.assert_allclose(probabilities(found), expected.probability, atol=TOLERANCE)


@pytest.mark.parametrize("model", ["logreg", "tiny/logreg", "models/tiny/logreg", "./models/tiny/logreg/"])
def test_a_model_has_several_names(project: Project, model: str) -> None:
    assert len(predicted(project.write(), model, "data/raw/red")["path"]) == 12


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


def test_embed_reads_the_cached_rows_of_new_images(project: Project) -> None:
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


def test_without_a_file_the_table_goes_to_stdout_and_the_summary_to_stderr(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write()
    assert cli.main(["predict", "knn", "data/raw/red/00.png"]) == 0
    printed = capsys.readouterr()
    head, row = printed.out.splitlines()
    assert head == ",".join(columns())
    assert row.startswith("data/raw/red/00.png,")
    assert "probabilities are the head's own, not calibrated (heads.knn.calibrate)" in printed.err


def test_the_decision_rule_is_that_of_compare(project: Project) -> None:
    params = project.write(compare={"costs": {"red": {"blue": 1e30, "green": 1e30}}})
    assert set(predicted(params, "logreg", "data/raw")["label"]) == {"red"}


def test_a_named_file_counts_whatever_its_suffix(project: Project) -> None:
    shutil.copy("data/raw/red/00.png", "picture.dat")
    assert predicted(project.write(), "logreg", "picture.dat")["path"] == ["picture.dat"]
