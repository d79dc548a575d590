"""Embeddings (the aligned matrix) and EmbeddingCache (the memo); the only file that imports h5py.

The cache is an append-only set of immutable shards, grouped by recipe. A shard's name is the sha256 of its bytes, so
a shard is checked before HDF5 parses it, and two writers can only ever add. A row's key is the sha256 of an image
file's bytes; the recipe is everything else that decides its numbers, up to the last bits, in which runtimes and batch
sizes differ: there the older row stays.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pipeline import stamps
from pipeline.atomic import replacing, write_json
from pipeline.cost import Cost
from pipeline.errors import StateError

# To change the layout of shards or matrices: raise this number. It is part of every recipe, so old shards are simply
# no longer found (and can be deleted), and `read` refuses old matrices.
SCHEMA_VERSION = 1

Floats = npt.NDArray[np.floating[Any]]
Recipe = Mapping[str, Any]


@dataclass(frozen=True)
class Embeddings:
    """One row per usable image, in manifest order: N rows of D features."""

    features: Floats
    """(N, D), in the recipe's dtype."""
    sha256: npt.NDArray[np.uint8]
    """(N, 32), of the image files' bytes."""
    image_id: Sequence[str]
    recipe: Recipe
    manifest_sha256: str


def matrix_path(backbone: str) -> Path:
    """Return where a backbone's matrix lies; its stamp lies beside it with the suffix .json."""
    return Path("data/embeddings") / f"{backbone}.h5"


def stamp_path(backbone: str) -> Path:
    """Return where the stamp of a backbone's matrix lies."""
    return matrix_path(backbone).with_suffix(".json")


def cost_path(backbone: str) -> Path:
    """Return where the cost of a backbone's rows is written: apart from the stamp, for seconds never repeat."""
    return matrix_path(backbone).with_suffix(".cost.json")


def keys_of(sha256: Iterable[str]) -> npt.NDArray[np.uint8]:
    """Turn hexadecimal hashes into the (N, 32) uint8 form that files hold."""
    return np.frombuffer(b"".join(bytes.fromhex(one) for one in sha256), dtype=np.uint8).reshape(-1, 32)


def write(path: Path, embeddings: Embeddings) -> None:
    """Write a matrix; equal content gives equal bytes, for HDF5 is told to store no times."""
    with replacing(path) as temporary:
        _guarded(temporary, lambda file: _fill(file, embeddings))


def _fill(file: h5py.File, embeddings: Embeddings) -> None:
    file.create_dataset("features", data=embeddings.features, track_times=False)
    file.create_dataset("sha256", data=embeddings.sha256, track_times=False)
    names = np.array([name.encode() for name in embeddings.image_id])
    file.create_dataset("image_id", data=names, track_times=False)
    file.attrs["schema_version"] = SCHEMA_VERSION
    file.attrs["recipe"] = stamps.canonical_json(embeddings.recipe)
    file.attrs["recipe_sha256"] = stamps.sha256_json(embeddings.recipe)
    file.attrs["manifest_sha256"] = embeddings.manifest_sha256


def _guarded(path: Path, fill: Callable[[h5py.File], None]) -> None:
    """Create an HDF5 file; a full disk, which HDF5 also reports as RuntimeError, becomes a StateError."""
    try:
        with h5py.File(path, "w") as file:
            fill(file)
    except (OSError, RuntimeError) as error:
        raise StateError(f"{path.parent}: cannot write ({error}); is the disk full?") from error


def read(backbone: str) -> Embeddings:
    """Read a backbone's matrix, after checking its bytes against the stamp."""
    path = matrix_path(backbone)
    content = stamps.check(path, stamps.read(stamp_path(backbone)))
    with h5py.File(BytesIO(content), "r") as file:
        version = int(file.attrs["schema_version"])
        if version != SCHEMA_VERSION:
            raise StateError(f"{path}: schema_version: got {version}, expected {SCHEMA_VERSION}; run `dvc repro`")
        return Embeddings(
            features=file["features"][:],
            sha256=file["sha256"][:],
            image_id=[name.decode() for name in file["image_id"][:]],
            recipe=json.loads(file.attrs["recipe"]),
            manifest_sha256=str(file.attrs["manifest_sha256"]),
        )


def read_cost(backbone: str) -> Cost:
    """Return what the passes behind a backbone's matrix took; StateError if that is not known."""
    path = cost_path(backbone)
    try:
        return Cost(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise StateError(f"{path}: missing or malformed; run `dvc repro --force`") from error


class EmbeddingCache:
    """The rows that were ever computed under one recipe, in immutable shards that many writers may add to.

    Args:
        root: the folder of all recipes; it may be shared by repositories and machines.
        recipe: everything besides the image's bytes that decides a row.

    Raises:
        StateError: if a shard's bytes are not those its name promises.

    """

    def __init__(self, root: Path, recipe: Recipe) -> None:
        self.folder = root / stamps.sha256_json(recipe)
        self.recipe = recipe
        self._places: dict[bytes, tuple[Path, int]] = {}
        self._costs: dict[Path, Cost] = {}
        shards = ((_parse(path, path.read_bytes()), path) for path in self.folder.glob("*.h5"))
        for shard, path in sorted(shards, key=lambda pair: (pair[0].created_ns, pair[1])):
            self._register(path, shard)

    def missing(self, keys: npt.NDArray[np.uint8]) -> list[int]:
        """Return the positions in keys (N, 32) whose rows must be computed; of equal keys only the first."""
        wanted: dict[bytes, int] = {}
        for position, key in enumerate(keys):
            wanted.setdefault(key.tobytes(), position)
        return [position for key, position in wanted.items() if key not in self._places]

    def append(self, keys: npt.NDArray[np.uint8], features: Floats, cost: Cost) -> None:
        """Add rows: keys (n, 32), features (n, D). They are on disk, whole, when this returns."""
        buffer = BytesIO()
        with h5py.File(buffer, "w") as file:
            file.create_dataset("features", data=features, track_times=False)
            file.create_dataset("sha256", data=keys, track_times=False)
            file.attrs["schema_version"] = SCHEMA_VERSION
            file.attrs["recipe_sha256"] = self.folder.name
            file.attrs["seconds"] = cost.seconds
            file.attrs["cpu_seconds"] = cost.cpu_seconds
            file.attrs["created_ns"] = time.time_ns()
        if not (self.folder / "recipe.json").exists():
            write_json(self.folder / "recipe.json", dict(self.recipe))
        content = buffer.getvalue()
        path = self.folder / f"{stamps.sha256_bytes(content)}.h5"
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        self._register(path, _parse(path, content))

    def gather(self, keys: npt.NDArray[np.uint8]) -> tuple[Floats, Cost]:
        """Return the rows of keys (N, 32) as (N, D), and what the passes that made them took.

        A shard's cost counts in proportion to its rows used; images that share their bytes share one row and its cost.
        """
        by_shard: dict[Path, list[tuple[int, int]]] = defaultdict(list)
        for position, key in enumerate(keys):
            shard, row = self._places[key.tobytes()]
            by_shard[shard].append((position, row))
        features: Floats | None = None
        seconds = cpu_seconds = 0.0
        images = 0
        for shard in sorted(by_shard):
            positions, rows = map(list, zip(*by_shard[shard], strict=True))
            stored = _parse(shard, shard.read_bytes()).features
            if features is None:
                features = np.empty((len(keys), stored.shape[1]), stored.dtype)
            features[positions] = stored[rows]
            cost, used = self._costs[shard], len(set(rows))
            seconds += cost.seconds * used / cost.images
            cpu_seconds += cost.cpu_seconds * used / cost.images
            images += used
        if features is None:
            raise StateError("no image could be embedded; see the skipped ones")
        return features, Cost(seconds, cpu_seconds, images)

    def _register(self, path: Path, shard: "_Shard") -> None:
        """Take a shard's rows in; a row that an older shard holds stays that one."""
        self._costs[path] = shard.cost
        for row, key in enumerate(shard.keys):
            self._places.setdefault(key.tobytes(), (path, row))


@dataclass(frozen=True)
class _Shard:
    keys: npt.NDArray[np.uint8]
    features: Floats
    cost: Cost
    created_ns: int


def _parse(path: Path, content: bytes) -> _Shard:
    """Open a shard whose bytes hash to its name, and no other."""
    if stamps.sha256_bytes(content) != path.stem:
        raise StateError(f"{path}: altered since it was written; delete it, and its rows are computed again")
    with h5py.File(BytesIO(content), "r") as file:
        keys, features = file["sha256"][:], file["features"][:]
        if file.attrs["recipe_sha256"] != path.parent.name:
            raise StateError(f"{path}: belongs to another recipe; delete it")
        cost = Cost(float(file.attrs["seconds"]), float(file.attrs["cpu_seconds"]), len(keys))
        created_ns = int(file.attrs["created_ns"])
    return _Shard(keys, features, cost, created_ns)
