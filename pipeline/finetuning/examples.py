"""The inputs of the trainable blocks: decoded for every batch, or the stored output of the frozen part."""

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.core.cost import Cost
from pipeline.core.errors import InputError, RefusedError, StateError
from pipeline.core.sections import Embed, Plan
from pipeline.data.images.decoding import Framing
from pipeline.embeddings import users
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.mapped import MappedRows
from pipeline.embeddings.shard_writer import TooNarrowError
from pipeline.embeddings.shards import Keys, keys_of
from pipeline.finetuning.processes import Processes
from pipeline.finetuning.task import Ints, Task
from pipeline.networks import frozen_pass, runtime, views
from pipeline.networks.backbones import Loaded
from pipeline.networks.frozen_pass import Item
from pipeline.networks.network import Backbone
from pipeline.networks.runtime import Floats, Forward

VARIED_VIEWS = 8
"""Stored of each training image where crops, rotations or colours make every view different; a choice, not measured."""
DISK_RESERVE = 100_000_000
"""Bytes that storing the frozen part's output leaves free on the disk."""


class Examples(Protocol):
    """Inputs of the trainable blocks, by row of the task and number of the view."""

    views: int
    """Views of a training row, the image itself included; rows of validation and test have one."""
    cost: Cost
    """What computing them beforehand took, in this process or another."""
    stored_bytes: int
    """Bytes that they take on the disk; 0 if images are decoded for every batch."""
    embedded: Floats | None
    """(N, D), the averaged output of the frozen network, if the classifier starts from a logistic regression."""

    def batch(self, rows: Ints, views: Ints) -> Tensor:
        """Return the inputs of some rows, each in one view: (B, C, H, W) float32."""


def examples_of(task: Task, loaded: Loaded, plan: Plan, settings: Embed, processes: Processes) -> Examples:
    """Return the inputs of a plan's trainable blocks; rows that the cache lacks are computed first.

    Raises:
        InputError: if the first trainable block does not exist, nothing is frozen that could be stored, or the disk is
            too small.

    """
    source = _examples_of(task, loaded, plan, settings, processes)
    if plan.start == "logistic":
        source.embedded, cost = _embedded(task, loaded, plan, settings, processes)
        source.cost += cost
    return source


def _examples_of(task: Task, loaded: Loaded, plan: Plan, settings: Embed, processes: Processes) -> Examples:
    frozen, _ = loaded.network.split_before(plan.unfreeze_from)
    forward = runtime.lazy(loaded.network.up_to(plan.unfreeze_from).eval(), settings.runtime) if len(frozen) else None
    if not plan.cache_frozen:
        return Live(task, loaded.network, loaded.framing, plan, forward)
    if forward is None:
        raise RefusedError(
            f"params.yaml: plans: cache_frozen: got true, but no block comes before {plan.unfreeze_from!r}; "
            f"expected unfreeze_from: {loaded.network.names()[1]} or a later block"
        )
    return Cached(task, loaded, plan, settings, forward, processes)


class Live:
    """Images are decoded for every batch and go through the frozen part, if any; memory stays bounded."""

    def __init__(
        self, task: Task, backbone: Backbone, framing: Framing, plan: Plan, forward: Forward | None = None
    ) -> None:
        self.task, self.backbone, self.framing, self.plan, self.forward = task, backbone, framing, plan, forward
        self.views, self.cost, self.stored_bytes = views.LIMIT, Cost(), 0
        self.embedded: Floats | None = None
        self.pool = ThreadPoolExecutor()

    def batch(self, rows: Ints, views: Ints) -> Tensor:
        """Decode and augment images, then run the frozen part or, without one, normalise."""
        items = [replace(self.task.items[row], view=int(view)) for row, view in zip(rows, views, strict=True)]
        images = np.stack(list(self.pool.map(self._load, items)))
        if self.forward is None:
            inputs = self.backbone.normalise(torch.from_numpy(images))
        else:
            inputs = torch.from_numpy(self._frozen(images, self.forward))
        return inputs.contiguous(memory_format=torch.channels_last)

    def _load(self, item: Item) -> views.Pixels:
        return frozen_pass.load(item, self.framing, self.plan.augment)

    def _frozen(self, images: views.Pixels, forward: Forward) -> Floats:
        """Run the frozen part in batches of the size that it was compiled for."""
        size = self.plan.batch_size
        padded = np.zeros((-(-len(images) // size) * size, *images.shape[1:]), np.uint8)
        padded[: len(images)] = images
        parts = [forward(padded[at : at + size]) for at in range(0, len(padded), size)]
        return np.concatenate(parts)[: len(images)]


class Cached:
    """The output of the frozen part, computed once per image and view, and mapped from the cache."""

    def __init__(
        self, task: Task, loaded: Loaded, plan: Plan, settings: Embed, forward: Forward, processes: Processes
    ) -> None:
        self.views = stored_views(plan)
        self.images, self.train = len(task.items), len(task.train)
        self.number_in_train = np.zeros(self.images, np.int64)
        self.number_in_train[task.train] = np.arange(self.train)
        self.embedded: Floats | None = None
        items, recipe = items_to_store(task, self.views), recipe_of(loaded, plan, settings)

        def announce(missing: int) -> str:
            return disk_use(missing, loaded, plan, settings.cache)

        self.stored, self.cost = _store(items, recipe, loaded, plan, settings, forward, processes, announce)
        self.stored_bytes = self.cost.images * int(self.stored[:1].nbytes)  # images with the same bytes share a row

    def batch(self, rows: Ints, views: Ints) -> Tensor:
        """Look up the stored rows."""
        beyond = self.images + (views - 1) * self.train + self.number_in_train[rows]
        found = self.stored[np.where(views == 0, rows, beyond)]
        return torch.from_numpy(found).float().contiguous(memory_format=torch.channels_last)


def stored_views(plan: Plan) -> int:
    """Return how many views of each training image are stored, the image itself included."""
    augment = plan.augment
    varied = augment.crop < 1 or augment.rotate or augment.colour
    return plan.cached_views or (VARIED_VIEWS if varied else len(views.orientations(augment)))


def items_to_store(task: Task, views: int) -> list[Item]:
    """Return every image, then the further views of the training images, one view after the other."""
    further = [replace(task.items[row], view=view) for view in range(1, views) for row in task.train]
    return [*task.items, *further]


def recipe_of(loaded: Loaded, plan: Plan, settings: Embed) -> Mapping[str, Any]:
    """Return everything that decides the stored rows: the frozen part, by its last layer, and the augmentation."""
    frozen, _ = loaded.network.split_before(plan.unfreeze_from)
    layer = loaded.network.names()[len(frozen) - 1]
    identity = {**loaded.identity, "layers": [layer], "pooling": ["none"], "columns": {}}
    settings = settings.model_copy(update={"dtype": plan.cached_dtype, "augment": plan.augment})
    return frozen_pass.augmented(frozen_pass.recipe_of(identity, settings), settings)


def keys_to_store(items: Sequence[Item]) -> Keys:
    """Return the cache keys of items, in their order."""
    return keys_of((item.sha256 for item in items), (item.view for item in items))


def embedder(loaded: Loaded) -> Backbone:
    """Return the network whose output, the last block averaged over space, a logistic start is fitted on."""
    whole, mean, std = loaded.network.blocks, loaded.identity["mean"], loaded.identity["std"]
    return Backbone(dict(whole.named_children()), mean, std).eval()


def recipe_of_embedded(loaded: Loaded, plan: Plan, settings: Embed) -> Mapping[str, Any]:
    """Return everything that decides the rows of `embedder`; if `embed` uses the same recipe, the cache has them."""
    network = embedder(loaded)
    columns = network.columns(loaded.framing.size)
    identity = {**loaded.identity, "layers": network.layers, "pooling": network.poolings, "columns": columns}
    return frozen_pass.recipe_of(identity, settings.model_copy(update={"dtype": plan.cached_dtype}))


def row_bytes(loaded: Loaded, plan: Plan) -> int:
    """Return the size of one stored row of the frozen part's output."""
    with torch.inference_mode():
        size = loaded.framing.size
        row = loaded.network.up_to(plan.unfreeze_from)(torch.zeros(1, 3, size, size))
    return int(row.numel() * np.dtype(plan.cached_dtype).itemsize)


def disk_use(missing: int, loaded: Loaded, plan: Plan, root: Path) -> str:
    """Say how much disk the missing rows take; InputError if the disk is too small."""
    needed = missing * row_bytes(loaded, plan)
    existing = next(folder for folder in [root.absolute(), *root.absolute().parents] if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if needed and needed + DISK_RESERVE > free:
        raise InputError(
            f"params.yaml: plans: cache_frozen: {missing:,} rows of the frozen part take {_size(needed)} in {root}; "
            f"got {_size(free)} free, expected at least {_size(needed + DISK_RESERVE)}: free some, or set fewer "
            "cached_views, a later unfreeze_from, or cache_frozen: false"
        )
    return f"frozen part: {missing:,} rows to store, {_size(needed)} in {root} ({_size(free)} free)"


def _embedded(task: Task, loaded: Loaded, plan: Plan, settings: Embed, processes: Processes) -> tuple[Floats, Cost]:
    """Return the embeddings of all items, and their cost."""
    forward = runtime.lazy(embedder(loaded), settings.runtime)
    recipe = recipe_of_embedded(loaded, plan, settings)
    stored, cost = _store(task.items, recipe, loaded, plan, settings, forward, processes)
    return np.asarray(stored[:]), cost


def _store(
    items: Sequence[Item],
    recipe: Mapping[str, Any],
    loaded: Loaded,
    plan: Plan,
    settings: Embed,
    forward: Forward,
    processes: Processes,
    announce: Callable[[int], str] | None = None,
) -> tuple[MappedRows, Cost]:
    """Compute the rows that the cache lacks, then return all rows and their cost; the processes share the work.

    `announce` turns the number of missing rows into a line that is printed first.
    """
    keys = keys_to_store(items)
    users.register(settings.cache)
    cache = EmbeddingCache(settings.cache, recipe)
    missing = cache.missing(keys)
    processes.wait()  # no process may store rows before all have listed what is missing
    line = announce(len(missing)) if announce else ""
    if line and len(missing) and processes.first:
        tqdm.write(line, file=sys.stderr)
    mine = [items[position] for position in processes.share(missing)]
    try:
        load = partial(frozen_pass.load, augment=plan.augment)
        lost = frozen_pass.run(mine, cache, forward, loaded.framing, plan.batch_size, plan.cached_dtype, load)
    except TooNarrowError as error:
        got, expected = "got 'float16', too narrow for this block's output", "expected 'float32'"
        raise RefusedError(f"params.yaml: plans: cached_dtype: {got}; {expected}") from error
    processes.wait()
    if lost:
        raise StateError(*(f"{reason}; run `dvc repro`" for reason in lost.values()))
    cache.wait_for(keys)
    return cache.mapped(keys), cache.cost(keys)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
