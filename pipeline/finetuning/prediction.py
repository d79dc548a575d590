"""How long a finished network takes from image files to probabilities."""

import copy
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from pipeline.core.errors import StateError
from pipeline.core.sections import Plan
from pipeline.finetuning.saving import Classifier
from pipeline.finetuning.task import Task
from pipeline.networks import frozen_pass, runtime
from pipeline.networks.backbones import Loaded

IMAGES = 256
"""Timed, at most: more would say little more."""


def facts(task: Task, loaded: Loaded, plan: Plan, runtime_name: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Time images of validation and test under a runtime, as it would predict; a batch that warms up is not counted.

    Only whole batches are timed, so that no padding is. Where the runtime does not compute what PyTorch does, that is
    said and nothing is timed: the training was right all the same.

    Args:
        task: the data.
        loaded: how images become the network's input, and its architecture.
        plan: whose batch size is used.
        runtime_name: one of `runtime.RUNTIMES`, or "auto".
        state: the trained network's.

    Returns:
        `prediction`: `seconds_per_1000`, `images` timed, and the name of the `runtime`; or nothing.

    Raises:
        InputError: if the runtime is not installed.

    """
    rows = np.concatenate([task.val, task.test])[:IMAGES]
    size = min(plan.batch_size, len(rows))
    items = [task.items[row] for row in rows[: len(rows) // size * size]]
    first = np.stack([frozen_pass.load(item, loaded.framing) for item in items[:size]])
    network = _finished(loaded, state)
    try:
        forward = runtime.prepare(network, runtime_name, first)
    except StateError as error:
        tqdm.write(f"prediction: not timed: {error}", file=sys.stderr)
        return {}
    forward(first)
    seconds = frozen_pass.seconds(items, forward, loaded.framing, size)
    used = runtime.used(network, runtime_name, first)
    return {"prediction": {"seconds_per_1000": 1000 * seconds / len(items), "images": len(items), "runtime": used}}


def _finished(loaded: Loaded, state: Mapping[str, Tensor]) -> Classifier:
    """Return a network of its own with the trained weights, on the CPU."""
    classes, width = state["classifier.weight"].shape
    network = Classifier(copy.deepcopy(loaded.network).cpu(), width, classes)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)
