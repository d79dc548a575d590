"""One contract for every backbone of the catalogue, and what loading weights refuses."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from pipeline import stamps
from pipeline.errors import InputError
from pipeline.nn import backbones
from pipeline.nn.backbones import BACKBONES
from pipeline.params import BackboneEntry
from tests.conftest import SIZE, Project, tiny_network

every_backbone = pytest.mark.parametrize("name", sorted(BACKBONES))


@pytest.fixture
def own_weights(tmp_path: Path, request: pytest.FixtureRequest) -> BackboneEntry:
    """Make a checkpoint of random weights for the backbone that the test is about."""
    torch.manual_seed(0)
    path = tmp_path / "own.safetensors"
    safetensors.torch.save_file(BACKBONES[request.getfixturevalue("name")].build().state_dict(), path)
    return BackboneEntry(image_size=64, weights=path, sha256=stamps.sha256_file(path))


@every_backbone
def test_the_blocks_compute_what_the_whole_network_computes(name: str, own_weights: BackboneEntry) -> None:
    network = backbones.load(name, own_weights).network
    torch.manual_seed(0)
    whole = BACKBONES[name].build().eval()
    classifier = whole.get_submodule(BACKBONES[name].classifier.rstrip("."))
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        embedded = network(images)
        torch.testing.assert_close(classifier(embedded), whole(network.normalise(images)))
    assert embedded.dtype == torch.float32


@every_backbone
def test_a_network_can_be_cut_before_every_block(name: str, own_weights: BackboneEntry) -> None:
    network = backbones.load(name, own_weights).network
    images = network.normalise(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8))
    with torch.inference_mode():
        expected = network.blocks(images)
        for block in network.names():
            frozen, trainable = network.split_before(block)
            torch.testing.assert_close(trainable(frozen(images)), expected)


@every_backbone
def test_identity_names_all_that_decides_the_numbers(name: str, own_weights: BackboneEntry) -> None:
    loaded = backbones.load(name, own_weights)
    assert loaded.identity["weights_sha256"] == own_weights.sha256
    assert {"backbone", "layer", "pooling", "image_size", "crop", "interpolation", "mean", "std"} < set(loaded.identity)


def test_normalising_is_torchvisions() -> None:
    from torchvision.transforms import v2

    network = backbones.Backbone({}, backbones.IMAGENET_MEAN, backbones.IMAGENET_STD)
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    reference = v2.Compose([v2.ToDtype(torch.float32, scale=True),
                            v2.Normalize(backbones.IMAGENET_MEAN, backbones.IMAGENET_STD)])  # fmt: skip
    torch.testing.assert_close(network.normalise(images), reference(images))


def test_the_packaged_weights_load_into_the_network_they_were_trained_for() -> None:
    """Weights in the wrong place would not keep the activations of a natural image in a trained network's range."""
    loaded = backbones.load("efficientnet_lite0", BackboneEntry())
    assert loaded.identity["weights_sha256"] == BACKBONES["efficientnet_lite0"].sha256
    ramp = torch.arange(224, dtype=torch.uint8).expand(1, 3, 224, 224)
    with torch.inference_mode():
        embedded = loaded.network(ramp)
    assert embedded.shape == (1, 1280)
    assert 0.5 < float(embedded.max()) < 6  # pooled ReLU6
    assert 0.01 < float(embedded.mean()) < 1


def tiny(project: Project, **changes: Any) -> BackboneEntry:
    return project.write().backbone("tiny").model_copy(update=changes)


def test_an_unknown_backbone_names_the_nearest(project: Project) -> None:
    with pytest.raises(InputError, match="got 'resnet81'.*did you mean 'resnet18'"):
        backbones.load("tiny", tiny(project, kind="resnet81"))


def test_weights_with_another_hash_are_not_parsed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(InputError, match="tiny.pth: weights: sha256: got [0-9a-f]{64}, expected eeee.*; not loaded"):
        backbones.load("tiny", tiny(project, sha256="e" * 64))


def test_missing_weights_are_named(project: Project) -> None:
    with pytest.raises(InputError, match=r"gone\.pth: weights: cannot be read"):
        backbones.load("tiny", tiny(project, weights=Path("gone.pth")))


class Malicious:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (Malicious(), "not a plain state dict"),
        (b"", "not a plain state dict"),
        (b"\x80\x02.", "not a plain state dict"),
        ({1: torch.zeros(1)}, "not a plain state dict"),
        ({"weights": [1, 2]}, "not a plain state dict"),
        ({"other": torch.zeros(1)}, r"do not fit the network: \d+ tensors, first '0.0.bias'"),
    ],
)
def test_a_file_that_is_no_state_dict_of_this_network_is_refused(project: Project, content: Any, problem: str) -> None:
    path = Path("bad.pth")
    if isinstance(content, Malicious | bytes):
        path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=problem):
        backbones.load("tiny", tiny(project, weights=path, sha256=stamps.sha256_file(path)))
    assert not Path("executed").exists()


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_a_wrapped_state_dict_with_another_classifier_is_taken(project: Project, wrapper: str) -> None:
    state = tiny_network().state_dict()
    state["4.weight"] = torch.zeros(99, 16)
    torch.save({wrapper: state, "epoch": 3}, "wrapped.pth")
    path = Path("wrapped.pth")
    loaded = backbones.load("tiny", tiny(project, weights=path, sha256=stamps.sha256_file(path)))
    torch.testing.assert_close(loaded.network.blocks[0][0].weight, state["0.0.weight"])


def test_torchvisions_weights_are_fetched_checked_and_found_again(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision.models

    source = tmp_path / "resnet18-00000000.pth"
    torch.save(BACKBONES["resnet18"].build().state_dict(), source)
    sha256 = stamps.sha256_file(source)
    published = source.rename(tmp_path / f"resnet18-{sha256[:8]}.pth")

    class Weights:
        class DEFAULT:
            url = published.as_uri()

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: Weights)
    monkeypatch.setitem(BACKBONES, "resnet18", backbones._resnet("resnet18", sha256[:8]))  # type: ignore[arg-type]
    loaded = backbones.load("resnet18", BackboneEntry(image_size=SIZE))
    assert loaded.weights == f"torch-hub:{published.name}"
    published.unlink()
    assert backbones.load("resnet18", BackboneEntry(image_size=SIZE)).weights == loaded.weights


def test_without_a_network_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from urllib.error import URLError

    def fail(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(InputError, match=r"cannot be downloaded .* set backbones.resnet18.weights and .sha256"):
        backbones.load("resnet18", BackboneEntry())
