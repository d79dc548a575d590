"""Embeddings of new images: rows of the matrix or the cache, and the frozen pass over the others."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipeline.core import processes, stamps
from pipeline.core.errors import StateError
from pipeline.core.params import Params
from pipeline.data import exclusions
from pipeline.embeddings import users
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.mapped import MappedRows
from pipeline.embeddings.shards import keys_of
from pipeline.serving.trained_model import TrainedModel


@dataclass(frozen=True)
class NewImages:
    """The n images that can be used, some of which may have the same bytes."""

    paths: Sequence[Path]
    sha256: Sequence[str]
    features: MappedRows
    """(n, D), read when used."""
    computed: int
    """The number of images that went through the CNN for them."""


def embed(paths: Sequence[Path], model: TrainedModel, params: Params) -> tuple[NewImages, list[str]]:
    """Return the usable ones among some files, embedded as the training images, and a line for each unusable one.

    Rows of images in the matrix are taken from there, so that they are those of training and scoring; rows of others
    are taken from the cache, or computed and added to it. A forgotten image is not read.

    Raises:
        StateError: if an `embed` or `forget` is running, or params.yaml or the code have another recipe by now.

    """
    sha256, bad = _hash_all(paths)
    known = {row.tobytes().hex(): number for number, row in enumerate(np.asarray(model.embedded.sha256))}
    new = {sha256[path]: path for path in reversed(paths) if path in sha256 and sha256[path] not in known}
    lost, computed = _compute(new, model, params)
    bad |= {path: lost[one] for path, one in sha256.items() if one in lost}
    usable = [path for path in paths if path not in bad]
    hashes = [sha256[path] for path in usable]
    lines = [f"{path}: {bad[path]}" for path in paths if path in bad]
    return NewImages(usable, hashes, _stored(hashes, known, model, params), computed), lines


def _hash_all(paths: Sequence[Path]) -> tuple[dict[Path, str], dict[Path, str]]:
    """Return the sha256 of each readable file, and the reason for each other one."""
    with ThreadPoolExecutor() as pool:
        found = tqdm(pool.map(_sha256_or_reason, paths), "hash", len(paths), unit="image", disable=None)
        results = dict(zip(paths, found, strict=True))
    hashes = {path: sha256 for path, (sha256, _) in results.items() if sha256}
    return hashes, {path: reason for path, (_, reason) in results.items() if reason}


def _sha256_or_reason(path: Path) -> tuple[str, str]:
    try:
        return stamps.sha256_file(path), ""
    except StateError as error:
        cause = error.__cause__
        return "", f"cannot be read ({cause.strerror})" if isinstance(cause, OSError) else "not a regular file"


def _compute(new: Mapping[str, Path], model: TrainedModel, params: Params) -> tuple[dict[str, str], int]:
    """Append the rows that the cache lacks; return sha256 -> reason of images without a row, and the number computed.

    Like `embed` and `forget`, this runs alone: a row must not be put back while its image is being forgotten.
    """
    lost = _forgotten(new)
    if not _missing(new.keys() - lost.keys(), model, params):
        return lost, 0
    with processes.alone(processes.EMBED_LOCK, "`headswap embed`, `predict` or `forget`"):
        lost = _forgotten(new)
        wanted = set(_missing(new.keys() - lost.keys(), model, params))
        bad = _pass({sha256: path for sha256, path in new.items() if sha256 in wanted}, model, params)
    return {**lost, **bad}, len(wanted) - len(bad)


def _forgotten(new: Mapping[str, Path]) -> dict[str, str]:
    return {sha256: "forgotten: see data/excluded.csv" for sha256 in exclusions.forgotten() if sha256 in new}


def _cache(model: TrainedModel, params: Params) -> EmbeddingCache:
    return EmbeddingCache(params.embed.cache, model.embedded.recipe)


def _missing(sha256: Iterable[str], model: TrainedModel, params: Params) -> list[str]:
    wanted = sorted(sha256)
    return [wanted[position] for position in _cache(model, params).missing(keys_of(wanted))]


def _pass(images: Mapping[str, Path], model: TrainedModel, params: Params) -> dict[str, str]:
    """Push images through the frozen network and append their rows; return sha256 -> reason of the unusable ones."""
    from pipeline.networks import backbones, frozen_pass, runtime  # noqa: PLC0415  # cached rows of a plain head need no torch
    from pipeline.serving.forward import load  # noqa: PLC0415

    settings, backbone = params.embed, model.run.backbone
    loaded = backbones.load(backbone, params.backbone(backbone))
    frozen_pass.require_recipe(model.embedded.recipe, loaded, settings, backbone)
    users.register(settings.cache)
    return frozen_pass.run(
        [frozen_pass.Item(path, sha256) for sha256, path in images.items()],
        _cache(model, params),
        runtime.lazy(loaded.network, settings.runtime),
        loaded.framing_for(settings),
        settings.batch_size,
        settings.dtype,
        load=load,
    )


def _stored(sha256: Sequence[str], known: Mapping[str, int], model: TrainedModel, params: Params) -> MappedRows:
    """Return the rows of the images, in their order, from matrix and cache."""
    features = model.embedded.features
    others = [position for position, one in enumerate(sha256) if one not in known]
    rows = np.array([known.get(one, 0) for one in sha256], np.intp)
    if not others:
        return MappedRows([features], rows)
    cached = _cache(model, params).mapped(keys_of(sha256[position] for position in others))
    rows[others] = len(features) + cached.rows
    return MappedRows([features, *cached.parts], rows)
