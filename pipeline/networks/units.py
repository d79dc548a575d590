"""The frozen pass on the workers of a cluster.

The unit of work is a list of images, from which a worker makes one immutable shard in the shared cache. The driver
hands out the units and watches the shards appear; no features pass through it.
"""

import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.cluster.call import LOOK_EVERY
from pipeline.cluster.remote import RemoteCluster
from pipeline.core.cost import Cost
from pipeline.core.errors import StateError
from pipeline.core.interrupts import deferred
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.shards import keys_of
from pipeline.networks import workers
from pipeline.networks.frozen_pass import Item
from pipeline.networks.workers import Job

UNIT_ROWS = 4096
"""Rows of the largest unit, all that a lost worker loses: some 10 MB, seconds on a GPU, a minute on a CPU core."""
UNITS_PER_SLOT = 8
"""At least so many: small units keep the end short, when some workers have nothing left to do."""
LOOKING_PART = 20
"""The pause between two looks at the cache, in multiples of a look's time: many shards take long to list."""
SHOWN = 8
"""Workers shown one by one."""


def run(cluster: RemoteCluster, job: Job, cached: EmbeddingCache, items: Sequence[Item]) -> dict[str, str]:
    """Embed the items on the workers, and return when all their rows are in the cache.

    On an interrupt no more units begin, and KeyboardInterrupt is raised; workers finish the units that they have begun.

    Args:
        cluster: whose workers agree with this process on all that decides rows; see `workers.agreed`.
        job: what to do with the items.
        cached: where the rows appear.
        items: the images, all missing from the cache, each content and view once.

    Returns:
        sha256 -> reason, of the images that could not be decoded.

    Raises:
        StateError: if all workers are lost, or units lose theirs too often.
        PipelineError: if a unit raises it, with the worker's name.

    """
    skipped: dict[str, str] = {}
    keys = keys_of((item.sha256 for item in items), (item.view for item in items))
    gpu = job.settings.runtime.startswith("torch") and cluster.slots(gpu=True) > 0
    progress, look_at = _Progress(len(items)), 0.0
    with (
        tqdm(total=len(items), desc="embed", unit="image", smoothing=0, disable=None) as bar,
        deferred() as interrupted,
    ):

        def left() -> list[Sequence[Item]]:
            progress.look(cached, bar)
            if interrupted():
                return []
            missing = [items[row] for row in cached.missing(keys) if items[row].sha256 not in skipped]
            return units(missing, cluster.slots(gpu=gpu) or 1, job.settings.batch_size)

        try:
            for done in cluster.rounds(partial(workers.embed, replace(job, gpu=gpu)), left, gpu=gpu):
                if done is not None:
                    skipped |= done
                    bar.update(len(done))
                if time.monotonic() >= look_at:
                    look_at = progress.look(cached, bar)
                if interrupted():
                    break
        except StateError:
            if not interrupted():  # else the same Ctrl-C ended the workers
                raise
        progress.look(cached, bar)
    for line in progress.lines():
        tqdm.write(f"embed: {line}", file=sys.stderr)
    cached.wait_for(keys[[item.sha256 not in skipped for item in items]])
    return skipped


def units(items: Sequence[Item], slots: int, batch_size: int) -> list[Sequence[Item]]:
    """Split items into units of whole batches: about equally many batches per unit, and units per slot."""
    batches = -(-len(items) // batch_size)
    largest = max(1, UNIT_ROWS // batch_size)
    per_slot = max(UNITS_PER_SLOT, -(-batches // (largest * slots)))
    bounds = np.linspace(0, batches, min(batches, per_slot * slots) + 1).astype(int) * batch_size
    return [items[start:stop] for start, stop in itertools.pairwise(bounds.tolist())]


class _Progress:
    """Images and seconds of each worker."""

    def __init__(self, total: int) -> None:
        self.costs: dict[str, Cost] = defaultdict(Cost)
        self.total = total

    def look(self, cached: EmbeddingCache, bar: "tqdm[Any]") -> float:
        """Look for new shards, show them, and return when to look again."""
        begun = time.monotonic()
        for added in cached.refresh():
            if added.worker:  # a merged shard has none, and its rows were shown before
                self.costs[added.worker] += added.cost
                bar.update(min(added.rows, self.total - bar.n))
        bar.set_postfix_str(str(self))
        now = time.monotonic()
        return now + max(LOOK_EVERY, LOOKING_PART * (now - begun))

    def lines(self) -> Iterator[str]:
        for worker, cost in sorted(self.costs.items()):
            yield f"{worker}: {cost.images} images, {_rate(cost):.1f} a second"

    def __str__(self) -> str:
        rates = sorted(_rate(cost) for cost in self.costs.values())
        if len(rates) <= SHOWN:
            return " + ".join(f"{rate:.1f}" for rate in rates) + " images/s" if rates else "no unit is finished yet"
        return f"{len(rates)} workers, {rates[0]:.1f} to {rates[-1]:.1f} images/s each"


def _rate(cost: Cost) -> float:
    return cost.images / max(cost.seconds, 1e-9)
