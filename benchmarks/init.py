"""Somebody's own images: how long it takes from a folder of 2,000 to a verdict without fine-tuning."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from benchmarks.clone import Clone
from benchmarks.figures import Figure, at_most, seconds

IMAGES = 2_000


def measure() -> Iterator[Figure]:
    """Lay images out as people have them, and run the two commands that the README names."""
    with tempfile.TemporaryDirectory() as name:
        clone = Clone(Path(name))
        _lay_out(clone.root / "data/raw/mine")
        first = seconds(lambda: clone.run("headswap", "init", "--data", "data/raw/mine", "--yes"))
        both = first + seconds(clone.repro)
        verdict = json.loads((clone.root / "reports/verdict.json").read_text())
        told = (
            f"from `headswap init` ({first:.0f} s) to a verdict on {IMAGES:,} images, {len(verdict['results'])} heads"
        )
        yield at_most(told, both / 60, "min", 3)


def _lay_out(folder: Path) -> None:
    """Copy the first of the demo's images, as a folder per class."""
    spec = find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise AssertionError("needs the demo's images: pip install 'headswap[demo]'")
    source = Path(spec.origin).parent / "data"
    for line in (source / "labels.csv").read_text().splitlines()[:IMAGES]:
        path, probability, _ = line.split()
        target = folder / ("defective" if float(probability) > 0.5 else "functional") / Path(path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / path, target)
