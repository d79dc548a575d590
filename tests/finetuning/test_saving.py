import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.core import stamps
from pipeline.core.errors import StateError
from pipeline.data import manifest
from pipeline.evaluation import runs
from pipeline.finetuning import saving
from pipeline.networks import frozen_pass
from pipeline.networks.frozen_pass import Item
from pipeline.stages import embed, finetune, prepare
from tests.conftest import Project

FOLDER = runs.folder("tiny", "last")


@pytest.fixture
def stamp(project: Project) -> stamps.Stamp:
    params = project.write()
    prepare.main(params)
    embed.main(params, "tiny")
    finetune.main(params, "tiny", "last")
    return stamps.read(runs.stamp_path("tiny", "last"))


def test_a_loaded_network_predicts_the_same_without_the_pre_trained_weights(stamp: stamps.Stamp) -> None:
    Path("tiny.pth").unlink()
    model = saving.load(FOLDER, stamp)
    expected, table = runs.read("tiny", "last").predictions, manifest.read()
    row_of = table.row_of()
    items = [Item(Path(table.path[row_of[name]]), table.sha256[row_of[name]]) for name in expected.image_id]
    images = np.stack([frozen_pass.load(item, model.framing) for item in items])
    np.testing.assert_allclose(saving.predict(model, images), expected.probability, atol=1e-5)
    assert list(model.classes) == list(expected.classes)


def test_the_description_holds_architecture_classes_preprocessing_and_lineage(stamp: stamps.Stamp) -> None:
    description = json.loads((FOLDER / "model.json").read_text())
    assert description["architecture"] == "tiny"
    assert description["classes"] == ["blue", "green", "red"]
    assert description["preprocessing"] == {
        "image_size": 32, "crop": 1.0, "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225], "scaled_jpeg": False,
    }  # fmt: skip
    assert description["made_from"] == stamp.inputs
    assert {"data/manifest.parquet", "tiny.pth"} <= description["made_from"].keys()


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_an_altered_file_is_not_parsed(stamp: stamps.Stamp, name: str) -> None:
    path = FOLDER / name
    path.write_bytes(path.read_bytes()[:-2] + b"}}")
    with pytest.raises(StateError, match="as stamped"):
        saving.load(FOLDER, stamp)


def test_another_version_and_weights_of_another_network_are_refused(stamp: stamps.Stamp) -> None:
    path = FOLDER / "model.json"
    description = json.loads(path.read_text())
    for changes, message in (({"schema_version": 99}, "got 99, expected 1"), ({"classes": ["a"]}, "do not fit tiny")):
        path.write_text(json.dumps({**description, **changes}))
        stamped = replace(stamp, outputs=stamps.hashes([path, FOLDER / "model.safetensors"]))
        with pytest.raises(StateError, match=message):
            saving.load(FOLDER, stamped)
