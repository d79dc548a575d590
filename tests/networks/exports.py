"""PyTorch's export of a network to ONNX, which takes seconds, done once for the same network, shape and options."""

import hashlib
from itertools import chain
from typing import Any

import pytest
from torch import nn

from pipeline.networks import onnx_export

_exported: dict[tuple[Any, ...], bytes] = {}


def remember(patch: pytest.MonkeyPatch) -> None:
    """Let every export that was made before be the bytes that it was then."""
    real = onnx_export.content

    def content(network: nn.Module, shape: tuple[int, ...], **options: Any) -> bytes:
        key = *_identity(network), shape, repr(options)
        if key not in _exported:
            _exported[key] = real(network, shape, **options)
        return _exported[key]

    patch.setattr(onnx_export, "content", content)


def forget() -> None:
    """Let the next exports be new ones."""
    _exported.clear()


def _identity(network: nn.Module) -> tuple[str, str, str]:
    """Return what decides an export: the weights, the parts, and the settings that no part shows."""
    weights = hashlib.sha256()
    for value in chain(network.parameters(), network.buffers()):
        weights.update(value.detach().contiguous().numpy().tobytes())
    settings = {name: value for name, value in vars(network).items() if not name.startswith("_")}
    return weights.hexdigest(), repr(network), repr(settings)
