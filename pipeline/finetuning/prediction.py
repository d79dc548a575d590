"""The time that a trained network takes from image files to probabilities."""

import copy
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from pipeline.core.errors import StateError
from pipeline.core.sections import Plan
from pipeline.finetuning.saving import FinetunedNetwork
from pipeline.finetuning.task import Task
from pipeline.networks import frozen_pass, runtime
from pipeline.networks.backbones import Loaded

MOST_TIMED = 256
"""Images that are timed, at most."""


def facts(task: Task, loaded: Loaded, plan: Plan, runtime_name: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Time predictions of validation and test images under a runtime, after one batch to warm up.

    Only whole batches are timed, to leave padding out. If the runtime does not compute what PyTorch does, a line says
    so and nothing is timed; the training itself is not affected.

    Args:
        task: the data.
        loaded: the architecture and its preprocessing.
        plan: with the batch size.
        runtime_name: one of `runtime.RUNTIMES`, or "auto".
        state: of the trained network.

    Returns:
        `prediction`: `seconds_per_1000`, `images` timed, and the `runtime` used; or an empty dictionary.

    Raises:
        InputError: if the runtime is not installed.

    """
    rows = np.concatenate([task.val, task.test])[:MOST_TIMED]
    size = min(plan.batch_size, len(rows))
    items = [task.items[row] for row in rows[: len(rows) // size * size]]
    first = np.stack([frozen_pass.load(item, loaded.framing) for item in items[:size]])
    network = _trained_network(loaded, state)
    try:
        forward = runtime.prepare(network, runtime_name, first)
    except StateError as error:
        tqdm.write(f"prediction: not timed: {error}", file=sys.stderr)
        return {}
    forward(first)
    seconds = frozen_pass.seconds(items, forward, loaded.framing, size)
    used = runtime.used(network, runtime_name, first)
    return {"prediction": {"seconds_per_1000": 1000 * seconds / len(items), "images": len(items), "runtime": used}}


def _trained_network(loaded: Loaded, state: Mapping[str, Tensor]) -> FinetunedNetwork:
    """Return a separate network with the trained weights, on the CPU."""
    classes, width = state["classifier.weight"].shape
    network = FinetunedNetwork(copy.deepcopy(loaded.network).cpu(), width, classes)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)
