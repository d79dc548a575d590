"""Networks as ONNX, exported by PyTorch."""

import contextlib
import io
import logging
import warnings

import torch
from torch import Tensor, nn

from pipeline.core.errors import StateError


class RoundedBackbone(nn.Module):
    """A backbone whose rows are rounded to the storage type, as stored ones are: float32 (B, D)."""

    def __init__(self, backbone: nn.Module, dtype: str) -> None:
        super().__init__()
        self.backbone, self.dtype = backbone, getattr(torch, dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        rows: Tensor = self.backbone(images).to(self.dtype).to(torch.float32)
        return rows


def content(network: nn.Module, shape: tuple[int, ...], **options: object) -> bytes:
    """Return a network as ONNX for uint8 images of one shape (B, 3, S, S); `options` go to the exporter.

    Raises:
        StateError: if PyTorch cannot export it.

    """
    buffer = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporter itself uses deprecated calls
        example = (torch.zeros(shape, dtype=torch.uint8),)
        program = torch.onnx.export(network.cpu(), example, dynamo=True, verbose=False, **options)  # type: ignore[arg-type]
    if program is None:
        raise StateError("the network cannot be exported to ONNX; set embed.runtime: torch")
    program.save(buffer)  # type: ignore[arg-type]  # takes any binary stream, says its documentation
    return buffer.getvalue()


def any_batch(network: nn.Module, size: int, output: str, opset: int) -> bytes:
    """Return a network as ONNX from `images`, uint8 (N, 3, size, size) for any N, to a named output.

    Raises:
        StateError: as `content`.

    """
    return content(
        network,
        (2, 3, size, size),  # the exporter would make a batch of one image a constant
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        input_names=["images"],
        output_names=[output],
        opset_version=opset,
    )
