"""One forward interface over PyTorch, OpenVINO and ONNX Runtime, with a numerical check.

To add a runtime: write a function from a module and an example batch to a Forward, and enter it in RUNTIMES.
`auto` times those in AUTO on the network itself, uses the fastest, and records the choice.
"""

import copy
import hashlib
import importlib
import itertools
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pipeline.core import environment, stamps, systems
from pipeline.core.atomic import replacing, still_there, write_json
from pipeline.core.errors import InputError, PipelineError, StateError, unknown
from pipeline.core.imports import import_without
from pipeline.networks import network as network_module
from pipeline.networks import onnx_export

Batch = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Forward = Callable[[Batch], Floats]
"""uint8 (B, 3, S, S) -> float32 (B, ...); B must always be the batch size that it was prepared for."""

TOLERANCE = 1e-3
"""The largest tolerated difference from eager float32, as a fraction of the largest value in the batch."""
AUTOCAST_TOLERANCE = 1e-2
"""The same in half precision, on a CUDA device."""
GUARDED = 4
"""Images that are compared; for a whole batch eager PyTorch would take longer than some runs do."""
CHOICES = Path(".headswap/runtime.json")
"""The choices of `auto`: hash of network, batch shape and processor -> runtime, and its timings."""
TIMINGS = 3
EXPORTS, EXPORTS_KEPT = Path(".headswap/onnx"), 8
"""Networks exported earlier, and how many of them are kept."""


def prepare(network: nn.Module, runtime: str, example: Batch) -> Forward:
    """Return the network's forward pass in a runtime, after a comparison with eager float32 on the first images.

    Raises:
        InputError: if the runtime is unknown or not installed.
        StateError: if it computes something else.

    """
    if runtime == "auto":
        return _fastest(network, example)
    if runtime not in RUNTIMES:
        raise InputError(unknown("params.yaml: embed.runtime", runtime, ["auto", *RUNTIMES]))
    with torch.inference_mode():
        expected = network(torch.from_numpy(example[:GUARDED])).numpy()
    forward = RUNTIMES[runtime](network, example)
    found = forward(example)[:GUARDED]
    if found.shape != expected.shape:
        raise StateError(f"runtime {runtime}: output: got shape {found.shape}, expected {expected.shape}")
    error = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-12))
    tolerance = AUTOCAST_TOLERANCE if runtime.startswith("torch") and device().type == "cuda" else TOLERANCE
    if not error <= tolerance:
        raise StateError(
            f"runtime {runtime}: differs from eager PyTorch by {error:.2g} of the largest value, expected at most "
            f"{tolerance:g}; set embed.runtime: torch"
        )
    return forward


def lazy(network: nn.Module, runtime: str) -> Forward:
    """Return a forward pass that is prepared when it gets its first batch."""
    prepared: Forward | None = None

    def forward(images: Batch) -> Floats:
        nonlocal prepared
        prepared = prepared or prepare(network, runtime, images)
        return prepared(images)

    return forward


def decided(network: nn.Module, runtime: str, batch_size: int, side: int) -> str:
    """Return the name of the runtime to use here; if there is no record of the choice of `auto`, time them."""
    if runtime != "auto":
        return runtime
    example = np.zeros((batch_size, 3, side, side), np.uint8)
    prepare(network, runtime, example)
    return used(network, runtime, example)


def used(network: nn.Module, runtime: str, example: Batch) -> str:
    """Return the name of the runtime that was prepared; for `auto`, of its choice."""
    return str(_choices()[_key(network, example)]["runtime"]) if runtime == "auto" else runtime


def _fastest(network: nn.Module, example: Batch) -> Forward:
    """Prepare the recorded choice for this network, batch and processor; if there is none, time all runtimes."""
    key, choices = _key(network, example), _choices()
    if key in choices:
        return prepare(network, choices[key]["runtime"], example)
    forwards, milliseconds, left_out = {}, {}, {}
    for name in AUTO if device().type == "cpu" else ["torch"]:
        try:
            forwards[name] = prepare(network, name, example)
        except PipelineError as error:
            left_out[name] = str(error)
        else:
            milliseconds[name] = 1000 * _seconds(forwards[name], example) / len(example)
    best = min(milliseconds, key=milliseconds.__getitem__)
    choices[key] = {"runtime": best, "milliseconds_per_image": milliseconds, "left_out": left_out}
    write_json(CHOICES, choices)
    return forwards[best]


def _key(network: nn.Module, example: Batch) -> str:
    return stamps.sha256_json([repr(network), example.shape, systems.processor()])


def _choices() -> dict[str, Any]:
    try:
        choices: dict[str, Any] = json.loads(CHOICES.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise StateError(f"{CHOICES}: not JSON; delete it, and the runtimes are timed again") from error
    return choices


def _seconds(forward: Forward, example: Batch) -> float:
    """Return the shortest of some timings, since a busy machine only makes them longer."""
    timings = []
    for _ in range(TIMINGS):
        start = time.perf_counter()
        forward(example)
        timings.append(time.perf_counter() - start)
    return min(timings)


def device() -> torch.device:
    """Return where PyTorch computes: on a GPU if there is one, on this process's own if there are several.

    The number is part of it, because plain "cuda" means the current thread's device, and other threads move batches.
    """
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def local_rank() -> int:
    """Return this process's number among those that `torchrun` started on this machine; 0 if it is alone."""
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return int(os.environ.get("LOCAL_RANK", "0")) if together else 0  # other launchers set LOCAL_RANK alone


def _torch(network: nn.Module, example: Batch) -> Forward:  # noqa: ARG001  # eager needs no example
    """Eager PyTorch, channels last; on a GPU with autocast and asynchronous copies."""
    return _on_device(_moved(network))


def _torch_compile(network: nn.Module, example: Batch) -> Forward:  # noqa: ARG001  # compiles at the first batch
    """PyTorch compiled by Inductor with frozen weights; needs a C++ compiler, and a minute for the first batch."""
    return _on_device(torch.compile(_moved(network), options={"freezing": True}))


def _moved(network: nn.Module) -> nn.Module:
    copied = copy.deepcopy(network)  # the caller's network stays where it is
    return copied.to(device(), memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _on_device(network: Callable[[torch.Tensor], torch.Tensor]) -> Forward:
    where = device()

    def forward(images: Batch) -> Floats:
        batch = torch.from_numpy(images)
        if where.type == "cuda":
            with torch.cuda.device(where):  # pin it in this device's context
                batch = batch.pin_memory()
        batch = batch.to(where, non_blocking=True).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(where.type, enabled=where.type == "cuda"):
            return network(batch).float().cpu().numpy()

    return forward


def _openvino(network: nn.Module, example: Batch) -> Forward:
    """OpenVINO on the CPU in float32. It reads ONNX itself: its converter would report usage, and is never imported."""
    core = _module("openvino", without="openvino.tools.ovc").Core()
    model = core.read_model(_onnx(network, example.shape))
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    settings |= {"INFERENCE_NUM_THREADS": str(threads())} if threads() else {}
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def forward(images: Batch) -> Floats:
        request.infer([images])
        return np.array(request.get_output_tensor(0).data, dtype=np.float32)

    return forward


def _onnxruntime(network: nn.Module, example: Batch) -> Forward:
    """ONNX Runtime on the CPU."""
    library = _module("onnxruntime")
    options = library.SessionOptions()
    options.intra_op_num_threads = threads()
    session = library.InferenceSession(_onnx(network, example.shape), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def forward(images: Batch) -> Floats:
        return np.asarray(session.run(None, {name: images})[0], dtype=np.float32)

    return forward


def threads() -> int:
    """Return how many threads OMP_NUM_THREADS, which PyTorch obeys, allows this process; 0 leaves it to the runtime.

    Dask and Ray set it for their workers, several of which share a machine.
    """
    stated = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(stated) if stated.isdecimal() else 0


RUNTIMES: Mapping[str, Callable[[nn.Module, Batch], Forward]] = {
    "torch": _torch,
    "torch_compile": _torch_compile,
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
}
AUTO = ("openvino", "onnxruntime", "torch")
"""What `auto` times on a CPU; compiling would often take longer than the pass."""


def _onnx(network: nn.Module, shape: tuple[int, ...]) -> bytes:
    """Return the network as ONNX for batches of one shape, from disk if it was exported before.

    Exporting takes seconds. The file's name has the hash of all that decides its content, and the hash of the content.
    """
    state = hashlib.sha256()
    for value in itertools.chain(network.parameters(), network.buffers()):
        state.update(value.detach().contiguous().cpu().numpy().tobytes())
    code = stamps.sha256_file(Path(network_module.__file__))
    key = stamps.sha256_json([state.hexdigest(), repr(network), shape, code, environment.versions()])
    for path in EXPORTS.glob(f"{key}-*.onnx"):
        try:
            content = stamps.read_bytes(path)
        except StateError:  # another process has just removed it
            continue
        if path.stem == f"{key}-{stamps.sha256_bytes(content)}":
            return content
    _module("onnxscript")
    content = onnx_export.content(network, shape)
    with replacing(EXPORTS / f"{key}-{stamps.sha256_bytes(content)}.onnx") as temporary:
        temporary.write_bytes(content)
    exports = sorted((looks.st_mtime, path) for path, looks in still_there(EXPORTS.glob("*.onnx")))
    for _, path in exports[:-EXPORTS_KEPT]:
        path.unlink(missing_ok=True)
    return content


def _module(name: str, without: str = "") -> ModuleType:
    try:
        return import_without(name, without) if without else importlib.import_module(name)
    except ImportError as error:
        extra = "onnxruntime" if name == "onnxruntime" else "openvino"
        raise InputError(
            f"params.yaml: embed.runtime: {name} is not installed: pip install 'headswap[{extra}]', "
            "or set embed.runtime: torch"
        ) from error
