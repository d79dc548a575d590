"""From an image file to the input of an exported model, as in the pipeline; needs neither torch nor scikit-learn."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.data.images import decoding
from pipeline.data.images.decoding import Framing, Pixels

KEY = "headswap.framing"
"""The key of the framing in the model's metadata."""


def pixels(path: str | Path, metadata: Mapping[str, str]) -> Pixels:
    """Read an image as `predict` does: (3, S, S) uint8, channels first.

    Args:
        path: of the file.
        metadata: the model's, `session.get_modelmeta().custom_metadata_map` of ONNX Runtime.

    Raises:
        BadImageError: if the pipeline cannot use the file as an image; docs/images.md says which it can.
        OSError: if it cannot be read.

    """
    framing = json.loads(metadata[KEY])
    return decoding.pixels(Path(path).read_bytes(), Framing(framing["size"], framing["crop"], framing["scaled_jpeg"]))


def metadata_of(framing: Framing) -> dict[str, Any]:
    """Return a framing as the metadata hold it."""
    return {**framing._asdict(), "resample": "bicubic"}
