"""Embeddings of new images: rows that matrix or cache know already, and the frozen pass over the others."""

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
from pipeline.serving.trained import Trained


@dataclass(frozen=True)
class New:
    """The images that can be used: n of them, some of which may share their bytes."""

    paths: Sequence[Path]
    sha256: Sequence[str]
    features: MappedRows
    """(n, D), unread."""
    computed: int
    """Images that went through the CNN for them."""


def embed(paths: Sequence[Path], trained: Trained, params: Params) -> tuple[New, list[str]]:
    """Return what is usable among some files, embedded as the training images were; and a line for each other one.

    Rows of images that the matrix holds are taken from there, so that they are the bytes that were trained and scored
    on; rows of others come from the cache, and go into it. One that was forgotten is not looked at.

    Raises:
        StateError: if an `embed` or `forget` is at work, or params.yaml or the code state another recipe by now.

    """
    sha256, reasons = _hashed(paths)
    known = {row.tobytes().hex(): number for number, row in enumerate(np.asarray(trained.embedded.sha256))}
    new = {sha256[path]: path for path in reversed(paths) if path in sha256 and sha256[path] not in known}
    lost, computed = _compute(new, trained, params)
    usable = [path for path in paths if path in sha256 and sha256[path] not in lost]
    bad = [
        f"{path}: {reasons[path] if path in reasons else lost[sha256[path]]}"
        for path in paths
        if path in reasons or sha256[path] in lost
    ]
    hashes = [sha256[path] for path in usable]
    return New(usable, hashes, _stored(hashes, known, trained, params), computed), bad


def _hashed(paths: Sequence[Path]) -> tuple[dict[Path, str], dict[Path, str]]:
    """Return the sha256 of each file's bytes, or the reason why there is none."""
    hashes, reasons = {}, {}
    with ThreadPoolExecutor() as pool:
        results = tqdm(pool.map(_sha256_or_reason, paths), "hash", len(paths), unit="image", disable=None)
        for path, (sha256, reason) in zip(paths, results, strict=True):
            if sha256:
                hashes[path] = sha256
            else:
                reasons[path] = reason
    return hashes, reasons


def _sha256_or_reason(path: Path) -> tuple[str, str]:
    try:
        return stamps.sha256_file(path), ""
    except StateError as error:
        cause = error.__cause__
        return "", f"cannot be read ({cause.strerror})" if isinstance(cause, OSError) else "not a regular file"


def _compute(new: Mapping[str, Path], trained: Trained, params: Params) -> tuple[dict[str, str], int]:
    """Append the rows that the cache lacks; return sha256 -> reason of what has none, and how many were computed.

    What `embed` and `forget` exclude each other for holds here, too: a row must not be put back while it is forgotten.
    """
    lost = {sha256: "forgotten: see data/excluded.csv" for sha256 in exclusions.forgotten() if sha256 in new}
    if not _missing(new.keys() - lost.keys(), trained, params):
        return lost, 0
    with processes.alone(processes.EMBED_LOCK, "`headswap embed`, `predict` or `forget`"):
        lost = {sha256: "forgotten: see data/excluded.csv" for sha256 in exclusions.forgotten() if sha256 in new}
        wanted = set(_missing(new.keys() - lost.keys(), trained, params))
        bad = _pass({sha256: path for sha256, path in new.items() if sha256 in wanted}, trained, params)
    return {**lost, **bad}, len(wanted) - len(bad)


def _cache(trained: Trained, params: Params) -> EmbeddingCache:
    return EmbeddingCache(params.embed.cache, trained.embedded.recipe)


def _missing(sha256: Iterable[str], trained: Trained, params: Params) -> list[str]:
    wanted = sorted(sha256)
    return [wanted[position] for position in _cache(trained, params).missing(keys_of(wanted))]


def _pass(images: Mapping[str, Path], trained: Trained, params: Params) -> dict[str, str]:
    """Push images through the frozen network and append their rows; return sha256 -> reason of the bad ones."""
    from pipeline.networks import backbones, frozen_pass, runtime  # noqa: PLC0415  # cached rows of a plain head need no torch
    from pipeline.serving.pixels import load  # noqa: PLC0415

    settings, backbone = params.embed, trained.run.backbone
    loaded = backbones.load(backbone, params.backbone(backbone))
    frozen_pass.require_recipe(trained.embedded.recipe, loaded, settings, backbone)
    users.register(settings.cache)
    return frozen_pass.run(
        [frozen_pass.Item(path, sha256) for sha256, path in images.items()],
        _cache(trained, params),
        runtime.lazy(loaded.network, settings.runtime),
        loaded.framing_for(settings),
        settings.batch_size,
        settings.dtype,
        load=load,
    )


def _stored(sha256: Sequence[str], known: Mapping[str, int], trained: Trained, params: Params) -> MappedRows:
    """Put rows of the matrix and of the cache together, in the order of the images."""
    features = trained.embedded.features
    others = [position for position, one in enumerate(sha256) if one not in known]
    rows = np.array([known.get(one, 0) for one in sha256], np.intp)
    if not others:
        return MappedRows([features], rows)
    cached = _cache(trained, params).mapped(keys_of(sha256[position] for position in others))
    rows[others] = len(features) + cached.rows
    return MappedRows([features, *cached.parts], rows)
