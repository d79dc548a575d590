"""What runs in a worker of a cluster: units of the frozen pass, after a check that worker and driver agree."""

import contextlib
import functools
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipeline.cluster import agreement
from pipeline.core import stamps
from pipeline.core.atomic import remove_if_stale
from pipeline.core.cost import Cost
from pipeline.core.errors import PipelineError, StateError
from pipeline.core.sections import Augment, BackboneEntry, Data, Embed
from pipeline.data.images.decoding import BadImageError, Framing
from pipeline.data.sources.remotes import Remote
from pipeline.embeddings import shards
from pipeline.embeddings.hdf5 import Floats
from pipeline.embeddings.shards import Keys, Recipe
from pipeline.networks import backbones, frozen_pass, runtime, views
from pipeline.networks.backbones import Loaded
from pipeline.networks.frozen_pass import Item, Pixels
from pipeline.networks.runtime import Forward

LIBRARIES = ("torch", "torchvision", "timm", "openvino", "onnxruntime", "numpy", "pillow")
"""Libraries that decide a row's bits, besides Headswap's own code."""


@dataclass(frozen=True)
class Job:
    """What all units of a pass have in common."""

    project: Path
    """The folder that relative paths start from, the same on all machines."""
    backbone: str
    entry: BackboneEntry
    settings: Embed
    """With the runtime that the driver chose."""
    data: Data
    recipe: Recipe
    """The rows': of images as they are, or of further views."""
    gpu: bool = False
    """Whether the engine gives each unit a GPU."""

    @property
    def cache(self) -> Path:
        """The folder that all workers write to."""
        return self.project / self.settings.cache


def embed(job: Job, items: Sequence[Item]) -> Mapping[str, str]:
    """Embed one unit into one shard; return sha256 -> reason, of the images that could not be decoded.

    Raises:
        PipelineError: as `frozen_pass.run`, with this worker's name.

    """
    with _working_in(job.project), _errors_naming_worker():
        if job.gpu and runtime.device().type != "cuda":
            raise StateError("was given a GPU by its engine, but PyTorch finds none")
        loaded, forward = _network(job.backbone, job.entry, job.settings.runtime, job.settings.batch_size)
        return frozen_pass.run(
            items,
            _WorkerCache(job),
            forward,
            framing=loaded.framing_for(job.settings),
            batch_size=job.settings.batch_size,
            dtype=job.settings.dtype,
            load=partial(_load, job.data, augment=job.settings.augment),
            shard_rows=len(items),
        )


@contextlib.contextmanager
def agreed(job: Job, first: Item) -> Iterator[agreement.Identify]:
    """Yield a function whose answer in every worker must equal this process's: what decides rows, where the cache is.

    Args:
        job: for which the workers are asked.
        first: an image that every worker must be able to read.

    """
    job.cache.mkdir(parents=True, exist_ok=True)
    for leftover in job.cache.glob(".seen.*.tmp"):
        remove_if_stale(leftover)
    token = _temporary(job.cache)
    token.write_text(token.name)
    try:
        yield partial(_identity, job, first, token)
    finally:
        token.unlink(missing_ok=True)


class _WorkerCache:
    """The cache in a worker, which only adds to it."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def append(self, keys: Keys, features: Floats, cost: Cost) -> None:
        """Add rows; their energy is unknown, since it is measured for a whole machine, which workers share."""
        shards.add(self.job.cache, self.job.recipe, keys, features, replace(cost, joules=None), agreement.worker())


@contextlib.contextmanager
def _working_in(project: Path) -> Iterator[None]:
    """Work in the project's folder; in a scratch folder, if this machine has no such folder."""
    with contextlib.chdir(project if project.is_dir() else _scratch().name):
        yield


@functools.cache
def _scratch() -> "tempfile.TemporaryDirectory[str]":
    """Return a folder that is removed with the process."""
    return tempfile.TemporaryDirectory(prefix="headswap-")


@contextlib.contextmanager
def _errors_naming_worker() -> Iterator[None]:
    try:
        yield
    except PipelineError as error:
        raise type(error)(*(f"worker {agreement.worker()}: {problem}" for problem in error.problems)) from error


@functools.lru_cache(maxsize=1)
def _network(backbone: str, entry: BackboneEntry, runtime_name: str, batch_size: int) -> tuple[Loaded, Forward]:  # noqa: ARG001
    """Load a network, once per process and batch size: its first batch prepares it."""
    loaded = backbones.load(backbone, entry)
    return loaded, runtime.lazy(loaded.network, runtime_name)


@functools.lru_cache(maxsize=1)
def _remote(data: Data) -> Remote:
    return Remote(data)


def _load(data: Data, item: Item, framing: Framing, augment: Augment | None = None) -> Pixels:
    """Read an image as `frozen_pass.load`, or from its remote root if this machine has no store."""
    if data.remote is None or item.path.exists():
        return frozen_pass.load(item, framing, augment)
    content = _remote(data).content(item.name)
    if stamps.sha256_bytes(content) != item.sha256:
        raise StateError(f"{data.remote}/{item.name}: changed since `prepare` hashed it; run `dvc repro`")
    return views.pixels(content, item.sha256, item.view, framing, augment or Augment())


def _identity(job: Job, first: Item, token: Path) -> dict[str, str]:
    """Return what decides rows in this process.

    Raises:
        StateError: if this process does not see the cache or an image.
        InputError: if the backbone cannot be loaded.

    """
    with _working_in(job.project):
        _require_shared(job.cache, token)
        with contextlib.suppress(BadImageError):
            _load(job.data, first, Framing(32, 1))
        loaded, _ = _network(job.backbone, job.entry, job.settings.runtime, job.settings.batch_size)
    recipe = frozen_pass.recipe_of(loaded.identity, job.settings)
    stated = {key: stamps.canonical_json(value) for key, value in recipe.items()}
    return {**stated, **agreement.software(LIBRARIES)}


def _require_shared(folder: Path, token: Path) -> None:
    """Raise StateError unless this process can read the token that the driver wrote, and write beside it."""
    mine = _temporary(folder)
    try:
        seen = token.read_text() == token.name
        mine.write_text("")
        mine.unlink()
    except OSError as error:
        raise StateError(_not_shared(folder, str(error.strerror))) from error
    if not seen:
        raise StateError(_not_shared(folder, "another file is there"))


def _not_shared(folder: Path, why: str) -> str:
    return (
        f"params.yaml: embed.cache: {folder}: {why}: not shared; expected a folder that driver and workers see under "
        "the same path, and may write to"
    )


def _temporary(folder: Path) -> Path:
    """Name a file as `atomic.replacing` does, so that the doctor recognises one that a kill leaves."""
    return folder / f".seen.{uuid.uuid4().hex}.tmp"
