"""The files of a fine-tuned network, model.safetensors and model.json: write and load."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pipeline.core import stamps
from pipeline.core.atomic import replacing, write_json
from pipeline.core.errors import StateError
from pipeline.data.images.decoding import Framing
from pipeline.networks import backbones
from pipeline.networks.network import Backbone, average

# To change the layout of model.json: raise this number; `load` then asks for a rerun.
SCHEMA_VERSION = 1


class FinetunedNetwork(nn.Module):
    """Pixels, uint8 (B, 3, S, S) -> probabilities (B, K): the whole network, for any runtime."""

    def __init__(self, backbone: Backbone, width: int, classes: int) -> None:
        super().__init__()
        self.backbone, self.classifier = backbone, nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Classify a batch."""
        logits: Tensor = self.classifier(average(self.backbone.blocks(self.backbone.normalise(images))))
        return logits.softmax(dim=1)


@dataclass(frozen=True)
class Model:
    """A loaded network, ready to predict."""

    network: FinetunedNetwork
    classes: Sequence[str]
    """In the order of the columns."""
    framing: Framing
    description: Mapping[str, Any]
    """All of model.json."""


def save(folder: Path, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> list[Path]:
    """Write both files, each atomically; equal content gives equal bytes.

    Args:
        folder: of the model.
        state: "backbone.<name>" and "classifier.<name>" -> tensor.
        description: `classes`, `preprocessing`, and what the model was made from.

    """
    weights, text = folder / "model.safetensors", folder / "model.json"
    content = safetensors.torch.save({name: value.cpu().contiguous() for name, value in state.items()})
    with replacing(weights) as temporary:
        temporary.write_bytes(content)
    write_json(text, {**description, "schema_version": SCHEMA_VERSION})
    return [weights, text]


def load(folder: Path, stamp: stamps.Stamp) -> Model:
    """Read a fine-tuned network; the pre-trained weights are not needed.

    Raises:
        StateError: if a file is missing, differs from its stamp, or has another version.
        InputError: if the library that defines the network is not installed.

    """
    text = folder / "model.json"
    description = json.loads(stamps.check(text, stamp))
    if (got := description.get("schema_version")) != SCHEMA_VERSION:
        raise StateError(f"{text}: schema_version: got {got}, expected {SCHEMA_VERSION}; run `dvc repro --force`")
    content = stamps.check(folder / "model.safetensors", stamp)
    preprocessing = description["preprocessing"]
    backbone = backbones.unfilled(description["architecture"], preprocessing)
    try:
        state = safetensors.torch.load(content)
        network = FinetunedNetwork(backbone, state["classifier.weight"].shape[1], len(description["classes"]))
        network.load_state_dict(state, assign=True)
    except (safetensors.SafetensorError, KeyError, RuntimeError) as error:
        raise StateError(f"{folder}: weights: do not fit {description['architecture']}") from error
    framing = Framing(preprocessing["image_size"], preprocessing["crop"], preprocessing["scaled_jpeg"])
    return Model(network.eval().requires_grad_(False), description["classes"], framing, description)


def preprocessing_of(loaded: backbones.Loaded) -> dict[str, Any]:
    """Return the preprocessing of images before the first block."""
    kept = ("image_size", "crop", "interpolation", "mean", "std")
    return {name: loaded.identity[name] for name in kept} | {"scaled_jpeg": loaded.framing.scaled_jpeg}


def predict(model: Model, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the probabilities of images (B, 3, S, S) by eager PyTorch: (B, K)."""
    with torch.inference_mode():
        return np.asarray(model.network(torch.from_numpy(images)))
