"""From an image file to what an exported model takes, as the pipeline does it; needs neither torch nor scikit-learn."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.data.images import decoding
from pipeline.data.images.decoding import Framing, Pixels

KEY = "headswap.framing"
"""Of the model's metadata."""


def pixels(path: str | Path, metadata: Mapping[str, str]) -> Pixels:
    """Read an image as `predict` does: (3, S, S) uint8, channels first.

    Args:
        path: of the file.
        metadata: the model's, `session.get_modelmeta().custom_metadata_map` of ONNX Runtime.

    Raises:
        BadImageError: if the file is no image that the pipeline would use; docs/images.md says which are.
        OSError: if it cannot be read.

    """
    told = json.loads(metadata[KEY])
    return decoding.pixels(Path(path).read_bytes(), Framing(told["size"], told["crop"], told["scaled_jpeg"]))


def told(framing: Framing) -> dict[str, Any]:
    """Return what the metadata say of a framing."""
    return {**framing._asdict(), "resample": "bicubic"}
