"""What runs in a worker of a cluster: a unit of the frozen pass, and before it the question whether all agree."""

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
"""What decides a row's bits besides Headswap's own code."""


@dataclass(frozen=True)
class Job:
    """What all units of a pass share."""

    project: Path
    """The folder that paths are relative to, the same on all machines."""
    backbone: str
    entry: BackboneEntry
    settings: Embed
    """With the runtime that the driver decided on."""
    data: Data
    recipe: Recipe
    """Of the rows: of images as they are, or of further views."""
    gpu: bool = False
    """Whether the engine gives each unit a GPU."""

    @property
    def cache(self) -> Path:
        """The folder that all write to."""
        return self.project / self.settings.cache


def embed(job: Job, items: Sequence[Item]) -> Mapping[str, str]:
    """Embed one unit into one shard; return sha256 -> reason, of the images that could not be decoded.

    Raises:
        PipelineError: as `embedding.run`, with this worker's name.

    """
    with _working_in(job.project), _named():
        if job.gpu and runtime.device().type != "cuda":
            raise StateError("was given a GPU by its engine, but PyTorch finds none")
        loaded, forward = _network(job.backbone, job.entry, job.settings.runtime, job.settings.batch_size)
        return frozen_pass.run(
            items,
            _Shards(job),
            forward,
            framing=loaded.framing_for(job.settings),
            batch_size=job.settings.batch_size,
            dtype=job.settings.dtype,
            load=partial(_load, job.data, augment=job.settings.augment),
            shard_rows=len(items),
        )


@contextlib.contextmanager
def agreed(job: Job, first: Item) -> Iterator[agreement.Identify]:
    """Yield the question that every worker must answer as this process does: what decides rows, where the cache is.

    Args:
        job: whose workers are asked.
        first: an image that they must be able to read.

    """
    job.cache.mkdir(parents=True, exist_ok=True)
    for left in job.cache.glob(".seen.*.tmp"):
        remove_if_stale(left)
    token = _temporary(job.cache)
    token.write_text(token.name)
    try:
        yield partial(_identity, job, first, token)
    finally:
        token.unlink(missing_ok=True)


class _Shards:
    """The cache as a worker has it: to add to."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def append(self, keys: Keys, features: Floats, cost: Cost) -> None:
        """Add rows; their energy is unknown, for it is measured of a machine that workers share."""
        shards.add(self.job.cache, self.job.recipe, keys, features, replace(cost, joules=None), agreement.worker())


@contextlib.contextmanager
def _working_in(project: Path) -> Iterator[None]:
    """Work where relative paths lead from; in a scratch folder, if the project is not here."""
    with contextlib.chdir(project if project.is_dir() else _scratch().name):
        yield


@functools.cache
def _scratch() -> "tempfile.TemporaryDirectory[str]":
    """Return a folder that goes with the process."""
    return tempfile.TemporaryDirectory(prefix="headswap-")


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except PipelineError as error:
        raise type(error)(*(f"worker {agreement.worker()}: {problem}" for problem in error.problems)) from error


@functools.lru_cache(maxsize=1)
def _network(backbone: str, entry: BackboneEntry, runtime_name: str, batch_size: int) -> tuple[Loaded, Forward]:  # noqa: ARG001
    """Load a network, once per process and size of batches: the first one prepares it."""
    loaded = backbones.load(backbone, entry)
    return loaded, runtime.lazy(loaded.network, runtime_name)


@functools.lru_cache(maxsize=1)
def _remote(data: Data) -> Remote:
    return Remote(data)


def _load(data: Data, item: Item, framing: Framing, augment: Augment | None = None) -> Pixels:
    """Read an image as `embedding.load`, or from its remote root where no store is in sight."""
    if data.remote is None or item.path.exists():
        return frozen_pass.load(item, framing, augment)
    content = _remote(data).content(item.name)
    if stamps.sha256_bytes(content) != item.sha256:
        raise StateError(f"{data.remote}/{item.name}: changed since `prepare` hashed it; run `dvc repro`")
    return views.pixels(content, item.sha256, item.view, framing, augment or Augment())


def _identity(job: Job, first: Item, token: Path) -> dict[str, str]:
    """Return what decides rows here.

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
    """Raise StateError unless what the driver has just written can be read here, and something written beside it."""
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
    """Name a file as `atomic.replacing` does, so that the doctor knows one that a kill leaves."""
    return folder / f".seen.{uuid.uuid4().hex}.tmp"
