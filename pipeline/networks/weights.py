"""The weights of a backbone: download and read their file, check its sha256, match them to a network."""

import warnings
from io import BytesIO
from pathlib import Path
from urllib.error import URLError

import safetensors.torch
import torch
from torch import Tensor

from pipeline.core import stamps
from pipeline.core.atomic import replacing
from pipeline.core.errors import InputError
from pipeline.networks.architectures import Architecture
from pipeline.networks.network import Blocks

StateDict = dict[str, Tensor]


def fetch(kind: str, architecture: Architecture, path: Path) -> None:
    """Download weights that are missing, if they are published; an interrupted download leaves nothing."""
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


def checked_bytes(locator: str, expected: str) -> bytes:
    """Read a file of weights; InputError if that fails, or its sha256 does not begin as expected."""
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


def parse(locator: str, content: bytes) -> StateDict:
    """Read a state dict without executing anything from the file."""
    try:
        if locator.endswith(".safetensors"):
            return safetensors.torch.load(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch, or the checks below, refuse any file that it warns about
            loaded = torch.load(BytesIO(content), map_location="cpu", weights_only=True)  # noqa: TID251  # here only
    except Exception as error:  # the parsers raise many kinds of errors on damaged files
        raise InputError(f"{locator}: weights: not a plain state dict ({type(error).__name__})") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()):
        raise InputError(f"{locator}: weights: not a plain state dict (names to tensors)")
    return loaded


def matching(own: StateDict, blocks: Blocks, given: StateDict, locator: str) -> StateDict:
    """Return the tensors of a checkpoint that the blocks need, by name; the classifier's may be missing or differ.

    If no name agrees but all shapes do, in order, tensors are matched by order: the packaged Lite weights need it.
    """
    if not own.keys() & given.keys() and [v.shape for v in own.values()] == [v.shape for v in given.values()]:
        given = dict(zip(own, given.values(), strict=True))
    held = {id(value) for block in blocks.values() for value in block.state_dict(keep_vars=True).values()}
    needed = {name: value for name, value in own.items() if id(value) in held}
    misfits = sorted((given.keys() - own.keys()) | (needed.keys() - given.keys()))
    misfits += [name for name in needed.keys() & given.keys() if needed[name].shape != given[name].shape]
    if misfits:
        raise InputError(f"{locator}: weights: do not fit the network: {len(misfits)} tensors, first {misfits[0]!r}")
    return {name: given[name].to(value.dtype) for name, value in needed.items()}
