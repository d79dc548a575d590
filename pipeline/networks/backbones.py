"""BACKBONES: name -> architecture, weights and preprocessing; `timm:<model>` stands for any CNN of timm's.

To add a backbone: one entry in BACKBONES, whose `cut` divides the network into named blocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.core import stamps
from pipeline.core.errors import InputError, unknown
from pipeline.core.sections import BackboneEntry, Embed
from pipeline.data.images.decoding import Framing
from pipeline.networks import weights
from pipeline.networks.architectures import Architecture, of_lite, of_timm, of_torchvision, torchvision_cnns
from pipeline.networks.network import Backbone

BACKBONES: Mapping[str, Architecture] = {
    "efficientnet_lite0": of_lite(0, 224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "efficientnet_lite1": of_lite(1, 240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "efficientnet_lite2": of_lite(2, 260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    **{name: of_torchvision(name) for name in torchvision_cnns()},
}


@dataclass(frozen=True)
class Loaded:
    """A backbone with its weights, and the identity of both."""

    network: Backbone
    identity: Mapping[str, Any]
    """All that decides the network's numbers, as in a recipe."""
    weights: str
    """The locator of the weights' file."""
    pinned: int
    """How many of the 64 digits of its sha256 were known beforehand."""
    framing: Framing

    def framing_for(self, settings: Embed) -> Framing:
        """Return how an image becomes a square, decoded as the settings say."""
        return self.framing._replace(scaled_jpeg=settings.scaled_jpeg)


def load(name: str, entry: BackboneEntry) -> Loaded:
    """Build a backbone and load its weights, after checking their sha256.

    Raises:
        InputError: if the name is unknown; the weights are missing, altered, malicious or of another network; or a
            layer is not one of its blocks.

    """
    kind = entry.kind or name
    architecture = architecture_of(kind, name)
    locator = weights_of(architecture, entry)
    if entry.weights is None:
        weights.fetch(kind, architecture, stamps.locate(locator))
    known = entry.sha256 or architecture.sha256
    content = weights.checked_bytes(locator, known)
    model = architecture.build()
    own = model.state_dict(keep_vars=True)
    blocks = architecture.cut(model)
    given = weights.parse(locator, content)
    model.load_state_dict(weights.matching(own, blocks, given, locator), strict=False, assign=True)
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
    """Build a backbone without values, to be loaded later; InputError if a package it needs is not installed."""
    architecture = architecture_of(kind, kind)
    mean, std = (tuple(preprocessing[name]) for name in ("mean", "std"))
    return Backbone(architecture.cut(architecture.build()), mean, std).eval()


@dataclass(frozen=True)
class Description:
    """What `headswap backbones` shows of a backbone."""

    width: int
    parameters: int
    """Parameters of the blocks; the classifier is not used."""
    size: int
    weights: str
    here: bool
    """Whether the weights' file is there; its hash is checked only when it is loaded."""


def describe(name: str, entry: BackboneEntry) -> Description:
    """Describe a backbone without loading or downloading weights; InputError if a package it needs is missing."""
    architecture = architecture_of(entry.kind or name, name)
    size = framing_of(architecture, entry).size
    blocks = architecture.cut(architecture.build())
    network = Backbone(blocks, architecture.mean, architecture.std, entry.layers, entry.pooling).eval().to("meta")
    width = network(torch.zeros(1, 3, size, size, dtype=torch.uint8, device="meta")).shape[1]
    locator = weights_of(architecture, entry)
    try:
        here = stamps.locate(locator).is_file()
    except InputError:  # its package is not installed
        here = False
    return Description(width, sum(value.numel() for value in network.parameters()), size, locator, here)


def architecture_of(kind: str, name: str) -> Architecture:
    """Look a kind up in the catalogue; InputError names the nearest kind."""
    if kind.startswith("timm:"):
        return of_timm(kind.removeprefix("timm:"))
    if kind not in BACKBONES:
        raise InputError(unknown(f"params.yaml: backbones.{name}", kind, BACKBONES) + "; or timm:<model>")
    return BACKBONES[kind]


def framing_of(architecture: Architecture, entry: BackboneEntry) -> Framing:
    """Return the framing of an entry, or else the one that the weights were trained for."""
    return Framing(entry.image_size or architecture.image_size, entry.crop or architecture.crop)


def weights_of(architecture: Architecture, entry: BackboneEntry) -> str:
    """Return the locator of the weights that an entry uses."""
    return entry.weights.as_posix() if entry.weights else architecture.weights()
