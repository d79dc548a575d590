"""One forward interface over PyTorch, OpenVINO and ONNX Runtime, with a numerical guard.

To add a runtime: write a function from a module and an example batch to a Forward, and enter it in RUNTIMES.
"""

import contextlib
import copy
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pipeline.errors import InputError, StateError, unknown
from pipeline.imports import import_without

Batch = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Forward = Callable[[Batch], Floats]
"""uint8 (B, 3, S, S) -> float32 (B, ...); B must always be the batch size it was prepared with."""

TOLERANCE = 1e-3
"""The largest difference from eager float32 that is let pass, as a fraction of the largest value in the batch."""
AUTOCAST_TOLERANCE = 1e-2
"""The same where half precision computes: on a CUDA device."""


def prepare(network: nn.Module, runtime: str, example: Batch) -> Forward:
    """Return the network's forward pass under a runtime, checked on the example batch against eager float32.

    Raises:
        InputError: if the runtime is unknown or not installed.
        StateError: if it computes something else.

    """
    if runtime not in RUNTIMES:
        raise InputError(unknown("params.yaml: embed.runtime", runtime, RUNTIMES))
    with torch.inference_mode():
        expected = network(torch.from_numpy(example)).numpy()
    forward = RUNTIMES[runtime](network, example)
    found = forward(example)
    if found.shape != expected.shape:
        raise StateError(f"runtime {runtime}: output: got shape {found.shape}, expected {expected.shape}")
    error = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-12))
    tolerance = AUTOCAST_TOLERANCE if runtime == "torch" and torch.cuda.is_available() else TOLERANCE
    if not error <= tolerance:
        raise StateError(
            f"runtime {runtime}: differs from eager PyTorch by {error:.2g} of the largest value, expected at most "
            f"{tolerance:g}; set embed.runtime: torch"
        )
    return forward


def _torch(network: nn.Module, example: Batch) -> Forward:  # noqa: ARG001  # eager needs no example
    """Eager PyTorch, channels last; on a CUDA device with autocast. The CUDA path has not been timed."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    moved = copy.deepcopy(network)  # the caller's network stays where it is
    network = moved.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(images: Batch) -> Floats:
        batch = torch.from_numpy(images).to(device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(device.type, enabled=device.type == "cuda"):
            return network(batch).float().cpu().numpy()  # type: ignore[no-any-return]

    return forward


def _openvino(network: nn.Module, example: Batch) -> Forward:
    """OpenVINO on the CPU in float32. It reads ONNX itself; its converter, which would report usage, is kept out."""
    core = _module("openvino", without="openvino.tools.ovc").Core()
    model = core.read_model(_onnx(network, example))
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def forward(images: Batch) -> Floats:
        request.infer([images])
        return np.array(request.get_output_tensor(0).data, dtype=np.float32)

    return forward


def _onnxruntime(network: nn.Module, example: Batch) -> Forward:
    """ONNX Runtime on the CPU."""
    session = _module("onnxruntime").InferenceSession(_onnx(network, example), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def forward(images: Batch) -> Floats:
        return np.asarray(session.run(None, {name: images})[0], dtype=np.float32)

    return forward


RUNTIMES: Mapping[str, Callable[[nn.Module, Batch], Forward]] = {
    "torch": _torch,
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
}


def _onnx(network: nn.Module, example: Batch) -> bytes:
    """Export to ONNX in memory, for batches of the example's shape."""
    _module("onnxscript")
    buffer = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporter's own use of deprecated calls
        program = torch.onnx.export(network.cpu(), (torch.from_numpy(example),), dynamo=True, verbose=False)
    if program is None:
        raise StateError("the network cannot be exported to ONNX; set embed.runtime: torch")
    program.save(buffer)  # type: ignore[arg-type]  # takes any binary stream, says its documentation
    return buffer.getvalue()


def _module(name: str, without: str = "") -> ModuleType:
    try:
        return import_without(name, without) if without else importlib.import_module(name)
    except ImportError as error:
        extra = "onnxruntime" if name == "onnxruntime" else "openvino"
        raise InputError(
            f"params.yaml: embed.runtime: {name} is not installed: pip install 'headswap[{extra}]', "
            "or set embed.runtime: torch"
        ) from error
