"""Compare the predictions of an ONNX file for training images with those of the pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime  # type: ignore[import-untyped]

from pipeline import heads
from pipeline.core.errors import StateError
from pipeline.finetuning import saving
from pipeline.networks import frozen_pass
from pipeline.networks.frozen_pass import Item, Pixels
from pipeline.networks.runtime import TOLERANCE
from pipeline.serving.export.onnx_model import OnnxExport
from pipeline.serving.trained_model import TrainedModel

IMAGES = 16
"""The number on which every export is checked."""
LARGEST = 1e-4
"""The difference of a probability that is accepted."""

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Parity:
    """The largest differences of a probability between ONNX Runtime and the pipeline, on some training images."""

    images: int
    whole: float
    """From pixels to probabilities."""
    head: float
    """Of the head alone, given the same features; for a fine-tuned network as `whole`."""

    def __str__(self) -> str:
        """Describe it; where another runtime rounds a feature differently, a head's probabilities may jump."""
        text = f"differs from the pipeline by at most {self.whole:.1g} on {self.images} training images"
        if self.whole <= LARGEST:
            return text
        jump = "this head's probabilities jump where a feature that is rounded the other way crosses a threshold"
        return f"{text}: {jump}; given the same features, by at most {self.head:.1g}"


def check(content: bytes, exported: OnnxExport, model: TrainedModel) -> Parity:
    """Run a file's bytes on training images, evenly spread.

    Raises:
        StateError: if its predictions differ from the pipeline's, or an image is missing or changed.

    """
    rows = model.training[np.unique(np.linspace(0, len(model.training) - 1, IMAGES).astype(int))]
    pixels = pixels_of(rows, exported, model)
    found = run(content, pixels)
    if model.network is not None:
        whole = head = _largest(found, saving.predict(model.network, pixels))
    else:
        features, stored = run(exported.features, pixels), model.embedded.features[rows]
        _require_close(features, stored)
        head, whole = (_largest(found, heads.predict(model.head, some)) for some in (features, stored))
    parity = Parity(len(rows), whole, head)
    if not parity.head <= LARGEST:
        raise StateError(f"the ONNX file {parity}, expected at most {LARGEST:g}; nothing was written")
    return parity


def pixels_of(rows: Sequence[int] | npt.NDArray[np.integer], exported: OnnxExport, model: TrainedModel) -> Pixels:
    """Return the images of some rows of the embeddings as the file's input: (n, 3, S, S)."""
    at = [model.row[row] for row in rows]
    items = [Item(Path(model.table.path[one]), model.table.sha256[one]) for one in at]
    return np.stack([frozen_pass.load(item, exported.framing) for item in items])


def run(content: bytes, pixels: Pixels) -> Floats:
    """Return the output of an ONNX file for images (n, 3, S, S)."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"images": pixels})[0])


def _largest(found: Floats, expected: Floats) -> float:
    return float(np.abs(found.astype(np.float64) - expected).max())


def _require_close(features: Floats, stored: Floats) -> None:
    """Raise StateError unless features equal the stored ones, up to the last bit of half precision."""
    error = _largest(features, stored) / max(float(np.abs(stored).max()), 1e-12)
    if not error <= 2 * TOLERANCE:
        raise StateError(f"the ONNX file's features differ by {error:.2g} of the largest; nothing was written")
