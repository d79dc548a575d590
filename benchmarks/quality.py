"""Quality: time and memory on 50,000 embeddings, and how much of what is put into clean data sets is found."""

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image

from benchmarks import study
from benchmarks.clone import REPOSITORY
from benchmarks.figures import Figure, at_least, at_most
from pipeline.core.params import Params
from pipeline.data import manifest
from pipeline.data.manifest import Manifest
from pipeline.quality import files
from pipeline.stages import embed, prepare, quality

IMAGES = 50_000
SWAPPED, COPIED, FOREIGN = 0.01, 20, 10
MOST = 6000
"""Images of a data set."""
LABELS_ARE_CLEAN = ("digits", "fashion_mnist")
LARGE_ENOUGH = ("elpv", "fashion_mnist")
"""Of 8 x 8 pixels a copy of 6 x 6 shows another picture."""


def measure() -> Iterator[Figure]:
    """Time the checks without decoding, then inject what they should find."""
    yield from _speed()
    for name in ("elpv", "digits", "fashion_mnist"):
        yield from _injected(name)


def _speed() -> Iterator[Figure]:
    command = [sys.executable, "-m", "benchmarks.memory", "quality", str(IMAGES)]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    *told, megabytes = done.stdout.split("\n")
    seconds = json.loads(told[0])
    for name, value in seconds.items():
        yield Figure(f"of that: {name}", value, "s")
    yield at_most(f"all checks on {IMAGES:,} embeddings of 1,280 features, 20 classes", sum(seconds.values()), "s", 120)
    yield at_most("peak memory of it", float(megabytes), "MB", 2000)


def _cropped(left: float, top: float, right: float, bottom: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.crop((
        round(image.width * left), round(image.height * top),
        image.width - round(image.width * right), image.height - round(image.height * bottom),
    ))  # fmt: skip


def _scaled(share: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.resize((round(image.width * share), round(image.height * share)))


def _same(image: Image.Image) -> Image.Image:
    return image


# suffix, change, JPEG quality
CHANGES: Sequence[tuple[str, Callable[[Image.Image], Image.Image], int]] = (
    (".jpg", _same, 60),
    (".jpg", _same, 80),
    (".png", _cropped(0.025, 0.025, 0.025, 0.025), 0),
    (".png", _cropped(0.05, 0, 0, 0), 0),
    (".png", _cropped(0, 0, 0, 0.05), 0),
    (".png", _scaled(0.8), 0),
    (".png", _scaled(1.5), 0),
)


@dataclass(frozen=True)
class Injected:
    """What was put into a data set, by image_id."""

    swapped: frozenset[str]
    copies: Mapping[str, str]
    """copy -> original, which is in another split."""
    foreign: frozenset[str]


def _injected(name: str) -> Iterator[Figure]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            settings = study.DATA[name](Path("data/raw") / name)
            clean = _params(settings)
            prepare.main(clean)
            injected = _inject(manifest.read(), Path("data/raw") / name)
            source = {"source": "csv_file", "path": f"data/raw/{name}"}
            params = _params({**settings, "data": source, "split": {"method": "predefined"}})
            prepare.main(params)
            embed.main(params, study.BACKBONE)
            quality.main(params)
            yield from _figures(name, files.read(), injected)
        finally:
            os.chdir(before)


def _params(settings: Mapping[str, Any]) -> Params:
    return study.params_of({**settings, "backbones": {study.BACKBONE: {"image_size": 224}}}, seed=0)


def _inject(table: Manifest, folder: Path) -> Injected:
    """Write labels.csv with other labels, changed copies and foreign pictures beside the images."""
    drawing = np.random.default_rng(0)
    rows = np.sort(drawing.permutation(len(table))[:MOST])
    label = dict(zip(table.image_id, table.label, strict=True))
    swapped = [table.image_id[at] for at in drawing.choice(rows, round(SWAPPED * len(rows)), replace=False)]
    label |= {one: str(drawing.choice([name for name in table.classes if name != label[one]])) for one in swapped}
    train = [at for at in rows if table.split[at] == "train" and table.image_id[at] not in swapped]
    lines = [(table.image_id[at], label[table.image_id[at]], table.split[at]) for at in rows]
    copies = {}
    for number, at in enumerate(drawing.choice(train, COPIED, replace=False)):
        suffix, change, jpeg = CHANGES[number % len(CHANGES)]
        with Image.open(table.path[at]) as image:
            changed = change(image)
            if not jpeg and changed.size == image.size:  # of 8 pixels, 2.5% are none
                suffix, jpeg = ".jpg", 80
            copy = f"copy{number:02}{suffix}"
            changed.save(folder / copy, quality=jpeg or 75)  # which a PNG has none of
        copies[copy] = table.image_id[at]
        lines.append((copy, table.label[at], "test"))
    for number in range(FOREIGN):
        foreign(number).save(folder / f"foreign{number}.png")
        lines.append((f"foreign{number}.png", table.classes[number % len(table.classes)], "train"))
    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "split"), *lines])
    return Injected(frozenset(swapped), copies, frozenset(f"foreign{number}.png" for number in range(FOREIGN)))


def foreign(number: int) -> Image.Image:
    """Return one of ten pictures that belong to no data set here: parts of photographs, then drawings; all grey."""
    left, top = (number * 70) % 400, (number * 53) % 200
    if number < 6:
        photograph = Image.fromarray(load_sample_image(("china.jpg", "flower.jpg")[number % 2]))
        return photograph.crop((left, top, left + 220, top + 220)).convert("L")
    drawing, picture = np.random.default_rng(number), Image.new("L", (220, 220), "white")
    pen = ImageDraw.Draw(picture)
    for line in range(12):
        x, y, size = drawing.integers(10, 200, 3).tolist()
        if number == 6:
            pen.ellipse((x, y, x + size / 4, y + size / 4), outline=0, width=3)
        elif number == 7:
            pen.rectangle((x, y, x + size / 4, y + size / 4), fill=size)
        elif number == 8:
            pen.text((10, 5 + 17 * line), f"Invoice {x}{y}, {size}.00 EUR, due in 14 days", fill=0)
        else:
            pen.line((x, y, size, 220 - x), fill=0, width=4)
    return picture


def _figures(name: str, found: files.Findings, injected: Injected) -> Iterator[Figure]:
    listed = {kind: [finding["image_id"] for finding in check["findings"]] for kind, check in found.items()}
    wrong = set(listed["label_error"])
    text, share = f"{name}: swapped labels found", 100 * len(wrong & injected.swapped) / len(injected.swapped)
    yield at_least(text, share, "%", 80) if name in LABELS_ARE_CLEAN else Figure(text, share, "%")
    yield Figure(f"{name}: other labels suspected", len(wrong - injected.swapped), "")
    pairs = {frozenset((one["image_id"], one["other"])) for one in found["near_duplicate"]["findings"]}
    copies = {frozenset(pair) for pair in injected.copies.items()}
    text, share = f"{name}: near-duplicates across splits found", 100 * len(pairs & copies) / len(copies)
    yield at_least(text, share, "%", 90) if name in LARGE_ENOUGH else Figure(text, share, "%")
    yield Figure(f"{name}: other pairs taken for near-duplicates", len(pairs - copies), "")
    far = set(listed["outlier"])
    yield at_least(f"{name}: foreign images found", 100 * len(far & injected.foreign) / FOREIGN, "%", 80)
    yield Figure(f"{name}: other images taken for foreign", len(far - injected.foreign), "")
