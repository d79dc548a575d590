"""What the embeddings alone say, as a stage."""

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.core import stamps
from pipeline.core.errors import StateError
from pipeline.data import manifest
from pipeline.embeddings import matrix
from pipeline.evaluation import surveys
from pipeline.evaluation.surveys import Survey
from pipeline.evaluation.transferability import score
from pipeline.stages import embed, prepare, survey
from tests.conftest import Project


@pytest.fixture
def embedded(project: Project) -> Project:
    prepare.main(project.write())
    embed.main(project.write(), "tiny")
    return project


def surveyed(project: Project) -> Survey:
    survey.main(project.write(), "tiny")
    return surveys.read("tiny")


def turn_labels(project: Project, split: str, step: int = 1) -> None:
    """Give every or every step-th image of a split the next class; embed anew, for the manifest is another."""
    table = manifest.read()
    turned = dict(zip(table.classes, [*table.classes[1:], table.classes[0]], strict=True))
    chosen = set([row for row, one in enumerate(table.split) if one == split][::step])
    labels = [turned[label] if row in chosen else label for row, label in enumerate(table.label)]
    manifest.write(manifest.Manifest(**{**vars(table), "label": labels}), {})
    embed.main(project.write(), "tiny")


def test_every_image_has_a_place_and_the_summary_says_the_scores(embedded: Project) -> None:
    said = survey.main(embedded.write(), "tiny")
    found, scores = surveys.read("tiny"), surveys.read("tiny").scores
    assert found.image_id == manifest.read().image_id
    assert found.position.shape == (36, 2)
    assert (scores.images, scores.training_images, scores.largest_class) == (18, 18, 0.333333)
    pattern = (
        rf"36 images mapped; nearest neighbours find the class of {scores.knn_accuracy:.1%} of 18 training images "
        r"\(the largest class is 33.3%\), LogME -?\d\.\d{3}, H-score \d\.\d\d"
    )
    assert re.fullmatch(pattern, said)


def test_scores_are_those_of_the_training_rows(embedded: Project) -> None:
    table, features = manifest.read(), matrix.read("tiny").features
    train = np.flatnonzero(np.array(table.split) == "train")
    targets = np.unique(np.array(table.label)[train], return_inverse=True)[1]
    assert surveyed(embedded).scores == score(features[train], targets, 18)


@pytest.mark.parametrize("split", ["val", "test"])
def test_labels_of_validation_and_test_images_do_not_change_the_scores(embedded: Project, split: str) -> None:
    before = surveyed(embedded).scores
    turn_labels(embedded, split)
    assert surveyed(embedded).scores == before


def test_labels_of_training_images_do(embedded: Project) -> None:
    before = surveyed(embedded).scores
    turn_labels(embedded, "train", step=2)
    after = surveyed(embedded).scores
    assert after.logme < before.logme
    assert after.knn_accuracy < before.knn_accuracy


def test_at_most_so_many_training_images_are_scored(embedded: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "MOST", 10)
    scores = surveyed(embedded).scores
    assert (scores.images, scores.training_images) == (10, 18)


def test_further_views_are_neither_scored_nor_mapped(embedded: Project) -> None:
    plain = surveyed(embedded)
    embed.main(embedded.write(embed={"copies": 2}), "tiny")
    found = surveyed(embedded)
    assert found.scores == plain.scores
    np.testing.assert_array_equal(found.position, plain.position)


def test_images_of_one_group_do_not_find_each_other(project: Project) -> None:
    dealt = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    lines = ["path,label,group,split"]
    for path in project.images:
        name, number = path.parent.name, int(path.stem)
        lines.append(f"{name}/{path.name},{name},{name}-{dealt[number]},{dealt[number]}")
    Path("data/raw/labels.csv").write_text("\n".join(lines))
    params = project.write(data={"source": "csv_file"}, split={"method": "predefined"})
    prepare.main(params)
    embed.main(params, "tiny")
    assert surveyed(project).scores.knn_accuracy == 0  # every class is one group


def test_the_stamp_names_what_it_was_made_from(embedded: Project) -> None:
    surveyed(embedded)
    stamp = stamps.read(surveys.stamp_path("tiny"))
    assert stamp.stage == "survey@tiny"
    assert stamp.inputs == stamps.hashes([manifest.MANIFEST, matrix.matrix_path("tiny")])


@pytest.mark.processors
def test_the_same_seed_gives_the_same_bytes(embedded: Project) -> None:
    def content() -> list[bytes]:
        surveyed(embedded)
        return [surveys.path_of("tiny").read_bytes(), surveys.stamp_path("tiny").read_bytes()]

    assert content() == content()


def test_embeddings_of_another_manifest_are_refused(embedded: Project) -> None:
    manifest.write(manifest.Manifest(**{**vars(manifest.read()), "label": ["red"] * 36}), {})
    with pytest.raises(StateError, match="made for another manifest"):
        surveyed(embedded)
