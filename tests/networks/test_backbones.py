"""One contract for every backbone of the catalogue, and what loading weights refuses."""

import sys
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from pipeline.core import stamps
from pipeline.core.errors import InputError
from pipeline.core.sections import BackboneEntry
from pipeline.networks import architectures, backbones, network, runtime
from pipeline.networks.backbones import BACKBONES
from pipeline.networks.network import Backbone
from tests.networks import exports
from tests.soak import soak

every_backbone = pytest.mark.parametrize("name", sorted(BACKBONES))
# One small member of each of the libraries' families.
FAMILIES = ("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_lite0", "googlenet",
            "inception_v3", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "resnet18",
            "shufflenet_v2_x0_5", "squeezenet1_1", "vgg11_bn")  # fmt: skip
TRANSFORM_INPUT = ("googlenet", "inception_v3")
every_family = pytest.mark.parametrize("name", FAMILIES)


def with_values(name: str) -> nn.Module:
    """Build a network with random weights, as its library does."""
    torch.manual_seed(0)
    if name.startswith("efficientnet_lite"):
        return BACKBONES[name].build().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"transform_input": True} if name in TRANSFORM_INPUT else {}
        return torchvision.models.get_model(name, weights=None, **options).eval()


def seen_by_the_head(model: nn.Module, images: Tensor) -> Tensor:
    """Return what reaches the first part behind the blocks when the whole network runs."""
    seen: list[Tensor] = []
    heads = [part for name, part in model.named_children() if name in network.HEADS and "ux" not in name]
    heads[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(images)
    return seen[0]


@every_family
def test_the_blocks_compute_what_the_whole_network_computes(name: str) -> None:
    architecture, model = BACKBONES[name], with_values(name).double()
    backbone = Backbone(architecture.cut(model), architecture.mean, architecture.std).double()
    pixels = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
    given = backbone.normalise(pixels)
    if name in TRANSFORM_INPUT:  # what a user of the library would feed it
        mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1)
                     for values in (architectures.IMAGENET_MEAN, architectures.IMAGENET_STD))  # fmt: skip
        given = (pixels / torch.tensor(255, dtype=torch.float64) - mean) / std
    with torch.inference_mode():
        expected = seen_by_the_head(model, given)
        found = backbone.blocks(backbone.normalise(pixels))
    torch.testing.assert_close(found if expected.ndim == 4 else network.average(found), expected)


@every_backbone
def test_every_backbone_is_cut_into_blocks_that_leave_only_the_head_out(name: str) -> None:
    architecture = BACKBONES[name]
    model = architecture.build()
    blocks = architecture.cut(model)
    assert next(iter(blocks)) == "stem"
    assert len(blocks) > 2
    held = {id(value) for block in blocks.values() for value in block.state_dict(keep_vars=True).values()}
    left = {key.split(".")[0] for key, value in model.state_dict(keep_vars=True).items() if id(value) not in held}
    assert left <= set(network.HEADS)


@pytest.mark.parametrize("name", [*FAMILIES, *soak(sorted(set(BACKBONES) - set(FAMILIES)))])
def test_every_backbone_can_be_described_without_its_weights(name: str) -> None:
    found = backbones.describe(name, BackboneEntry())
    assert 32 <= found.size <= 1024
    assert found.width >= 192
    assert found.parameters > 100_000


@pytest.fixture
def own_weights(tmp_path: Path, request: pytest.FixtureRequest) -> BackboneEntry:
    """Make a checkpoint of random weights for the backbone that the test is about."""
    path = tmp_path / "own.safetensors"
    safetensors.torch.save_file(with_values(request.getfixturevalue("name")).state_dict(), path)
    return BackboneEntry(image_size=64, weights=path, sha256=stamps.sha256_file(path))


some_backbones = pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "densenet121"])


@some_backbones
def test_a_network_can_be_cut_before_every_block(name: str, own_weights: BackboneEntry) -> None:
    loaded = backbones.load(name, own_weights).network
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        expected = loaded.blocks(loaded.normalise(pixels))
        for block in loaded.names():
            _, trainable = loaded.split_before(block)
            torch.testing.assert_close(trainable(loaded.up_to(block)(pixels)), expected)


@some_backbones
def test_identity_names_all_that_decides_the_numbers(name: str, own_weights: BackboneEntry) -> None:
    loaded = backbones.load(name, own_weights)
    assert loaded.identity["weights_sha256"] == own_weights.sha256
    assert {"backbone", "layers", "pooling", "image_size", "crop", "interpolation", "mean", "std"} < set(
        loaded.identity
    )


@pytest.mark.parametrize("name", ["resnet18"])
class TestLayersAndPooling:
    LAYERS: ClassVar = {"layers": ["layer4", "layer2"], "pooling": ["max", "gem", "average"]}

    def test_several_are_concatenated_in_the_given_order(self, name: str, own_weights: BackboneEntry) -> None:
        loaded = backbones.load(name, own_weights.model_copy(update=self.LAYERS))
        pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
        with torch.inference_mode():
            embedded = loaded.network(pixels)
            after = {layer: loaded.network.up_to(following)(pixels) for layer, following in [("layer2", "layer3")]}
            after["layer4"] = loaded.network.blocks(loaded.network.normalise(pixels))
        columns = loaded.identity["columns"]
        assert list(columns) == [f"{layer}/{pooling}" for layer in ("layer4", "layer2")
                                 for pooling in ("max", "gem", "average")]  # fmt: skip
        for key, (start, stop) in columns.items():
            layer, pooling = key.split("/")
            torch.testing.assert_close(embedded[:, start:stop], network.POOLINGS[pooling](after[layer]))
        assert embedded.shape == (2, 3 * (512 + 128))

    def test_blocks_behind_the_last_wanted_one_do_not_run(self, name: str, own_weights: BackboneEntry) -> None:
        loaded = backbones.load(name, own_weights.model_copy(update={"layers": ["layer1"]}))
        loaded.network.blocks.layer2.register_forward_hook(lambda *_: pytest.fail("layer2 ran"))
        loaded.network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))

    def test_an_unknown_layer_names_the_nearest(self, name: str, own_weights: BackboneEntry) -> None:
        with pytest.raises(InputError, match=r"layers: got 'layr4', expected one of: .*did you mean 'layer4'"):
            backbones.load(name, own_weights.model_copy(update={"layers": ["layr4"]}))

    @pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
    def test_every_runtime_can_run_them(
        self, name: str, own_weights: BackboneEntry, engine: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exports.remember(monkeypatch)
        loaded = backbones.load(name, own_weights.model_copy(update=self.LAYERS))
        example = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
        assert runtime.prepare(loaded.network, engine, example)(example).shape == (2, 1920)


def test_poolings_are_means_of_orders_one_three_and_infinity() -> None:
    values = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    for name, order in (("average", 1), ("gem", 3), ("max", np.inf)):
        norm = np.linalg.norm(values.numpy().reshape(2, 3, 20), ord=order, axis=2)
        expected = norm / (20 ** (1 / order) if np.isfinite(order) else 1)
        np.testing.assert_allclose(network.POOLINGS[name](values).numpy(), expected)


def test_the_registrys_transformers_are_not_taken_for_cnns() -> None:
    left_out = set(torchvision.models.list_models(module=torchvision.models)) - set(BACKBONES)
    assert {name.split("_")[0] for name in left_out} == {"maxvit", "swin", "vit"}


def test_normalising_is_torchvisions() -> None:
    from torchvision.transforms import v2

    backbone = Backbone({"none": nn.Identity()}, architectures.IMAGENET_MEAN, architectures.IMAGENET_STD)
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    reference = v2.Compose([v2.ToDtype(torch.float32, scale=True),
                            v2.Normalize(architectures.IMAGENET_MEAN, architectures.IMAGENET_STD)])  # fmt: skip
    torch.testing.assert_close(backbone.normalise(pixels), reference(pixels))


class TestTimm:
    @staticmethod
    def checkpoint(name: str, folder: Path) -> BackboneEntry:
        import timm

        torch.manual_seed(0)
        path = folder / "timm.safetensors"
        safetensors.torch.save_file(timm.create_model(name).state_dict(), path)
        return BackboneEntry(kind=f"timm:{name}", image_size=96, weights=path, sha256=stamps.sha256_file(path))

    @pytest.mark.parametrize(
        ("name", "blocks"), [("resnet18", 5), ("regnetx_002", 5), ("dla34", 1), ("mobilenetv3_small_050", 7)]
    )
    def test_any_cnn_becomes_blocks_that_compute_its_features(self, name: str, blocks: int, tmp_path: Path) -> None:
        import timm

        loaded = backbones.load("mine", self.checkpoint(name, tmp_path)).network
        torch.manual_seed(0)
        model = timm.create_model(name).eval()
        pixels = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8)
        with torch.inference_mode():
            expected = model.forward_features(loaded.normalise(pixels))
            torch.testing.assert_close(loaded.blocks(loaded.normalise(pixels)), expected)
        assert len(loaded.names()) == blocks

    def test_its_published_weights_are_fetched_into_a_file_of_ours(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import huggingface_hub

        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
        published = self.checkpoint("resnet18", tmp_path).weights
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repository, file: str(published))
        loaded = backbones.load("mine", BackboneEntry(kind="timm:resnet18.a1_in1k"))
        assert loaded.weights == "torch-hub:timm-resnet18.a1_in1k.safetensors"
        assert published is not None
        assert loaded.identity["weights_sha256"] == stamps.sha256_file(published)

    def test_an_unknown_model_and_a_transformer_are_refused(self) -> None:
        with pytest.raises(InputError, match=r"got 'resnet81', .*did you mean 'resnet"):
            backbones.load("mine", BackboneEntry(kind="timm:resnet81"))
        with pytest.raises(InputError, match="not a CNN"):
            backbones.describe("mine", BackboneEntry(kind="timm:vit_tiny_patch16_224"))

    def test_without_timm_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(InputError, match=r"pip install 'headswap\[timm\]'"):
            backbones.describe("mine", BackboneEntry(kind="timm:resnet18"))
