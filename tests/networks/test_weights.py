"""What loading a backbone's weights fetches, checks and refuses."""

import dataclasses
import pickle
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch

from pipeline.core import stamps
from pipeline.core.errors import InputError
from pipeline.core.sections import BackboneEntry
from pipeline.networks import architectures, backbones
from pipeline.networks.backbones import BACKBONES
from tests.conftest import SIZE, Project, tiny_network
from tests.networks.test_backbones import with_values


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_the_packaged_weights_load_into_the_network_they_were_trained_for(name: str) -> None:
    """Weights in the wrong place would not keep the activations of a natural image in a trained network's range."""
    loaded = backbones.load(name, BackboneEntry(image_size=224))
    assert loaded.identity["weights_sha256"] == BACKBONES[name].sha256
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


class TestFetching:
    @pytest.fixture(autouse=True)
    def _hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))

    @staticmethod
    def serve(monkeypatch: pytest.MonkeyPatch, folder: Path, sha256: str | None = None) -> Path:
        """Let a file of random weights be what torchvision's registry publishes for resnet18."""
        path = folder / "published.pth"
        torch.save(with_values("resnet18").state_dict(), path)
        entry = dataclasses.replace(
            BACKBONES["resnet18"],
            weights=lambda: "torch-hub:resnet18.pth",
            sha256=sha256 or stamps.sha256_file(path)[:8],
            fetch=partial(architectures._fetch_torchvision, path.as_uri()),
        )
        monkeypatch.setitem(BACKBONES, "resnet18", entry)  # type: ignore[arg-type]
        return path

    def test_weights_are_fetched_checked_and_found_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        published = self.serve(monkeypatch, tmp_path)
        assert not backbones.describe("resnet18", BackboneEntry()).here
        assert backbones.load("resnet18", BackboneEntry(image_size=SIZE)).weights == "torch-hub:resnet18.pth"
        published.unlink()
        assert backbones.describe("resnet18", BackboneEntry()).here
        backbones.load("resnet18", BackboneEntry(image_size=SIZE))

    def test_a_download_with_another_hash_is_not_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.serve(monkeypatch, tmp_path, sha256="00000000")
        with pytest.raises(InputError, match=r"resnet18.pth: weights: sha256: got .*, expected 00000000; not loaded"):
            backbones.load("resnet18", BackboneEntry())
        assert not [path for path in (tmp_path / "hub").rglob("*") if path.is_file()]

    def test_without_internet_access_the_remedy_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise URLError("no route to host")

        monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
        with pytest.raises(InputError, match=r"cannot be downloaded .* set backbones.resnet18.weights and .sha256"):
            backbones.load("resnet18", BackboneEntry())
