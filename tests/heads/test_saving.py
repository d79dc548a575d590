"""Saved heads: without code, with the recorded bytes."""

import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pipeline import heads
from pipeline.core import stamps
from pipeline.core.errors import StateError
from pipeline.heads.types import Classifier
from pipeline.networks import streaming
from tests.heads.examples import data, fit, fitted

NETWORKS = ["mlp", "streaming_linear", "streaming_mlp"]


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    """Train heads that stream for fewer steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "STEPS", 20)
        yield


def assert_same_after_loading(model: Classifier, X: np.ndarray, folder: Path) -> None:
    files = heads.save(folder, model)
    loaded = heads.load(folder, stamps.Stamp("train", stamps.hashes(files), {}))
    np.testing.assert_array_equal(heads.predict(loaded, X), heads.predict(model, X))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_networks_weights_are_kept_as_safetensors(name: str, tmp_path: Path) -> None:
    X, y = data()
    files = heads.save(tmp_path, fitted(name, X, y).model)
    assert [path.name for path in files] == ["model.skops", "weights.safetensors"]
    assert {"0.output_weight", "0.output_bias"} <= set(load_file(files[1]))


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    X, y = data()
    files = heads.save(tmp_path, fitted("mlp", X, y).model)
    stamp = stamps.Stamp("train", stamps.hashes(files), {})
    save_file({name: array + 1 for name, array in load_file(files[1]).items()}, files[1])
    with pytest.raises(StateError, match="weights.safetensors.*as stamped"):
        heads.load(tmp_path, stamp)


def test_networks_within_an_ensemble_are_saved_separately(tmp_path: Path) -> None:
    X, y = data()
    members = {"one": {"kind": "mlp", "hidden": 4, "epochs": 3}, "two": {"kind": "mlp", "hidden": 8, "epochs": 3}}
    model = fit("voting", {"members": members, "calibrate": "sigmoid"}, X, y).model
    assert_same_after_loading(model, X, tmp_path)


@pytest.mark.parametrize("class_name", ["ensemble.GradientBoostingClassifier", "neural_network.MLPClassifier"])
def test_other_classifiers_of_scikit_learn_survive_save_and_load(class_name: str, tmp_path: Path) -> None:
    X, y = data()
    entry = {"class_name": f"sklearn.{class_name}", "scale": "standard"}
    model = fit("sklearn_class", entry, X, y).model
    assert_same_after_loading(model, X, tmp_path)


def test_a_head_that_would_not_load_is_not_saved(tmp_path: Path) -> None:
    X, y = data()
    model = fit("sklearn_class", {"class_name": "sklearn.neighbors.RadiusNeighborsClassifier", "radius": 99.0}, X, y)
    with pytest.raises(StateError, match=r"no head of ours has: .*KDTree; not saved"):
        heads.save(tmp_path, model.model)
    assert not list(tmp_path.iterdir())


class Malicious:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("executed"),))


def test_a_file_with_other_bytes_than_recorded_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(StateError, match="as stamped"):
        heads.load(tmp_path, stamps.Stamp("train", {path.as_posix(): "0" * 64}, {}))


def test_a_stamped_file_with_foreign_types_is_refused_without_executing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.skops"
    X, y = data()
    heads.save(tmp_path, fitted("logreg", X, y).model)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["schema.json"] = (
        files["schema.json"].replace(b"StandardScaler", b"Popen").replace(b"sklearn.preprocessing._data", b"subprocess")
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(StateError, match=r"no head of ours has: subprocess\.Popen"):
        heads.load(tmp_path, stamps.Stamp("train", stamps.hashes([path]), {}))
    assert not Path("executed").exists()
