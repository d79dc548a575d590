"""Backbone: a CNN in named blocks, without its classifier; and how to cut a library's network into blocks."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from pipeline.core.errors import InputError, RefusedError, unknown

Blocks = dict[str, nn.Module]

CLASSIFIER = "classifier"
"""The plans' name for the part behind the last block, which is always new."""

GEM_POWER, GEM_FLOOR = 3.0, 1e-6
"""The exponent p of the generalised mean, and the floor of its inputs (Radenovic et al. 2018, eq. 1)."""


def average(activations: Tensor) -> Tensor:
    """Average over space: (B, C, h, w) -> (B, C)."""
    return activations.mean(dim=(2, 3))


def largest(activations: Tensor) -> Tensor:
    """Take the maximum over space: (B, C, h, w) -> (B, C)."""
    return activations.amax(dim=(2, 3))


def generalised_mean(activations: Tensor) -> Tensor:
    """Take the mean of order p over space, between average and maximum: (B, C, h, w) -> (B, C)."""
    return activations.clamp(min=GEM_FLOOR).pow(GEM_POWER).mean(dim=(2, 3)).pow(1 / GEM_POWER)


POOLINGS = {"average": average, "max": largest, "gem": generalised_mean}


class Backbone(nn.Module):
    """uint8 (B, 3, S, S) -> float32 (B, width): the activations of some blocks, pooled and concatenated.

    Args:
        blocks: the whole network's, in the order they run.
        mean: of each of the three channels, as a fraction of white.
        std: likewise.
        layers: names of the blocks whose output is pooled; the last block unless given.
        poolings: names from POOLINGS, each applied to each layer.

    Raises:
        InputError: if a layer is not a block.

    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        blocks: Blocks,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        layers: Sequence[str] = (),
        poolings: Sequence[str] = ("average",),
    ) -> None:
        super().__init__()
        if wrong := [layer for layer in layers if layer not in blocks]:
            raise InputError(*[unknown("params.yaml: backbones.*.layers", layer, blocks) for layer in wrong])
        self.layers = list(layers) or list(blocks)[-1:]
        self.poolings = list(poolings)
        self.blocks = nn.Sequential()
        for name, block in blocks.items():
            self.blocks.add_module(name, block)
        # (x / 255 - mean) / std, with pixels as they are stored
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    def extra_repr(self) -> str:
        """Name layers and poolings: runtimes remember a network by its representation."""
        return f"layers={self.layers}, poolings={self.poolings}"

    def normalise(self, images: Tensor) -> Tensor:
        """Turn uint8 (B, 3, S, S) into what the first block expects."""
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        return torch.cat(list(self._pooled(images).values()), dim=1)

    def columns(self, size: int) -> dict[str, list[int]]:
        """Return "layer/pooling" -> its columns of a row, as [start, stop], for S = size."""
        with torch.inference_mode():
            widths = {name: part.shape[1] for name, part in self._pooled(torch.zeros(1, 3, size, size)).items()}
        ends = accumulate(widths.values(), initial=0)
        return {name: list(columns) for name, columns in zip(widths, pairwise(ends), strict=True)}

    def _pooled(self, images: Tensor) -> dict[str, Tensor]:
        """Run the blocks up to the last wanted layer; return "layer/pooling" -> (B, C), in the order of the lists."""
        outputs: dict[str, Tensor] = {}
        activations = self.normalise(images)
        for name, block in self.blocks.named_children():
            if outputs.keys() >= set(self.layers):
                break
            outputs[name] = activations = block(activations)
        return {
            f"{layer}/{pooling}": POOLINGS[pooling](outputs[layer])
            for layer in self.layers
            for pooling in self.poolings
        }

    def names(self) -> list[str]:
        """Return the blocks' names, in the order they run."""
        return [name for name, _ in self.blocks.named_children()]

    def split_before(self, name: str) -> tuple[nn.Sequential, nn.Sequential]:
        """Split the blocks into those before the named one and the rest; `classifier` leaves the rest empty.

        Raises:
            RefusedError: if there is no such block; it lists the valid names.

        """
        names = [*self.names(), CLASSIFIER]
        if name not in names:
            raise RefusedError(unknown("plans: unfreeze_from", name, names))
        at = names.index(name)
        return self.blocks[:at], self.blocks[at:]

    def up_to(self, name: str) -> "Prefix":
        """Return the part before a block as a network of its own; errors as `split_before`."""
        return Prefix(self, self.split_before(name)[0])


class Prefix(nn.Module):
    """uint8 (B, 3, S, S) -> the activations at a block's boundary, float32 (B, C, h, w)."""

    def __init__(self, backbone: Backbone, blocks: nn.Sequential) -> None:
        super().__init__()
        self.backbone, self.blocks = backbone, blocks

    def forward(self, images: Tensor) -> Tensor:
        """Run the blocks."""
        activations: Tensor = self.blocks(self.backbone.normalise(images))
        return activations


HEADS = ("avgpool", "global_pool", "dropout", "fc", "classifier", "head", "aux1", "aux2", "AuxLogits")
"""The libraries' names for the parts behind the last activations, and for extra classifiers."""
CONTAINERS = ("features", "layers", "trunk_output", "blocks", "stages")
"""Their names for a chain of parts that become blocks."""


def cut(model: nn.Module) -> Blocks:
    """Cut a network whose parts run one after the other into named blocks, up to its last activations.

    A block starts with a part that has parts of its own, with a convolution after such a part, or with whatever follows
    max pooling; activations, normalisation and pooling belong to the block before them. The first block is called
    `stem`; each other one has its first part's name, or `block<n>` where that name is a number.
    """
    blocks: dict[str, list[nn.Module]] = {}
    before: nn.Module | None = None
    for name, part in _chain(model):
        if before is None or _starts_block(part, before):
            blocks[_block_name(name, len(blocks))] = []
        blocks[next(reversed(blocks))].append(part)
        before = part
    return {name: parts[0] if len(parts) == 1 else nn.Sequential(*parts) for name, parts in blocks.items()}


def _chain(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, part in model.named_children():
        if name in CONTAINERS:
            yield from part.named_children()
        elif name not in HEADS:
            yield name, part


def _starts_block(part: nn.Module, before: nn.Module) -> bool:
    if _is_composite(part) or isinstance(before, nn.MaxPool2d):
        return True
    return isinstance(part, nn.Conv2d) and _is_composite(before)


def _is_composite(part: nn.Module) -> bool:
    normalises = isinstance(part, nn.modules.batchnorm._BatchNorm)  # timm's batch norm contains its activation
    return next(part.children(), None) is not None and not normalises


def _block_name(name: str, number: int) -> str:
    if number == 0:
        return "stem"
    return f"block{number}" if name.isdigit() else name
