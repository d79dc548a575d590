"""Run images through networks, from files that may change at any time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from pipeline.core.errors import StateError
from pipeline.core.sections import Augment, Embed
from pipeline.data.images.decoding import BadImageError, Framing
from pipeline.finetuning.saving import Model
from pipeline.networks import frozen_pass, runtime
from pipeline.networks.frozen_pass import Item, Pixels


def load(item: Item, framing: Framing, augment: Augment | None = None) -> Pixels:
    """Read an image as `frozen_pass.load`; BadImageError, which skips it, if it changed since it was hashed."""
    try:
        return frozen_pass.load(item, framing, augment)
    except StateError as error:
        raise BadImageError("gone, or changed while it was read; predict it again") from error


def probabilities(
    model: Model, paths: Sequence[Path], sha256: Sequence[str], settings: Embed
) -> npt.NDArray[np.float64]:
    """Return a fine-tuned network's probabilities for images, computed by `embed.runtime`: (n, K).

    Raises:
        StateError: if an image changes while it is read, or the runtime's numbers differ from PyTorch's.

    """
    first = {one: path for path, one in zip(reversed(paths), reversed(sha256), strict=True)}
    items = [Item(path, one) for one, path in first.items()]
    forward = runtime.lazy(model.network, settings.runtime)
    found: dict[str, npt.NDArray[np.float32]] = {}
    with tqdm(total=len(items), desc="predict", unit="image", disable=None) as bar:
        for batch, rows in frozen_pass.rows(items, forward, model.framing, settings.batch_size, load=load):
            found |= {item.sha256: row for item, row in zip(batch, rows, strict=True)}
            bar.update(len(batch))
    if lost := [f"{first[one]}: gone, or changed while it was read" for one in first if one not in found]:
        raise StateError(*lost)
    probability = np.array([found[one] for one in sha256], np.float64)
    return np.asarray(probability / probability.sum(axis=1, keepdims=True))
