"""The map of the embeddings: an Altair chart compiled to Vega for the browser, and its data as compact JSON.

The page holds the images once, in columns, and for each backbone their positions. `templates/page.js` combines them,
lets a reader choose the colouring, and shows the image under the pointer.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import vl_convert
from markupsafe import Markup
from PIL import Image

from pipeline.core import stamps
from pipeline.core.atomic import write_text
from pipeline.data.images.thumbnails import QUALITY
from pipeline.evaluation.scoring.predictions import Predictions
from pipeline.report.evidence import Evidence

# Okabe & Ito's colours, then those of Tableau that differ most from them; further classes repeat the colours.
CLASS_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f00", "#9467bd", "#8c564b",
                 "#e377c2", "#bcbd22", "#17becf")  # fmt: skip
SPLITS = {"train": "#8a94a3", "val": "#e69f00", "test": "#0072b2"}
OUTCOMES = {"right": "#0072b2", "wrong": "#d55e00", "not predicted": "#8a94a355"}
"""Of a run's decisions; a run does not predict training images, nor those that its backbone skipped."""
SCRIPTS = Path(".headswap/report")
GRID = 10_000
"""Positions are integers up to this number: finer than any screen."""
IMAGES_BYTES, SPRITE_BYTES = 4_500_000, 1_800_000
"""The most bytes of the page for images and for their thumbnails; beyond, some are left out, and the page says so."""


@dataclass(frozen=True)
class MapImages:
    """The images on the map, as many as fit."""

    rows: Sequence[int]
    """Of the manifest, ascending."""
    sprite: bytes
    pictured: int
    """How many images, the first of the thumbnails, the sprite holds."""


def map_images(evidence: Evidence) -> MapImages:
    """Choose as many images as fit: those with a thumbnail first, then the others in the order of their hashes."""
    table, pictures = evidence.table, evidence.thumbnails
    sprite, pictured = _cut_sprite(pictures.sprite, len(pictures.image_id), pictures.columns, pictures.cell)
    row_of = table.row_of()
    first = [row_of[image_id] for image_id in pictures.image_id[:pictured]]
    others = sorted(set(range(len(table))) - set(first), key=lambda row: (table.sha256[row], row))
    rows, left = list[int](), IMAGES_BYTES
    each = 30 + 12 * len(evidence.finished) + 20 * len(evidence.surveys)  # the most bytes of an image's numbers
    for row in (*first, *others):
        left -= each + len(embedded_json(table.image_id[row]).encode())
        if left < 0:
            break
        rows.append(row)
    return MapImages(sorted(rows), sprite, pictured)


@lru_cache(maxsize=1)
def _cut_sprite(sprite: bytes, images: int, columns: int, cell: int) -> tuple[bytes, int]:
    """Return the first rows of a sprite, at most SPRITE_BYTES, and how many images they hold."""
    found, rows = sprite, math.ceil(images / columns)
    while len(found) > SPRITE_BYTES and rows > 1:
        rows = min(rows - 1, max(1, int(rows * SPRITE_BYTES / len(found))))
        with Image.open(BytesIO(sprite)) as grid, BytesIO() as stream:
            grid.crop((0, 0, columns * cell, rows * cell)).save(stream, "WEBP", quality=QUALITY)
            found = stream.getvalue()
    return found, min(images, rows * columns)


def spec(points: int) -> Any:  # noqa: ANN401  # Vega's JSON
    """Return the Vega specification of a map with this many points; page.js adds rows, colours and size."""
    size = float(np.clip(60_000 / max(points, 1), 6, 60))
    scale = alt.Scale(domain=[0, GRID], nice=False, padding=8)
    chart = (
        alt.Chart(alt.NamedData("points"))
        .mark_circle(size=size, opacity=0.85, aria=False)
        .encode(
            x=alt.X("x:Q", axis=None, scale=scale),
            y=alt.Y("y:Q", axis=None, scale=scale),
            color=alt.Color("colour:N", scale=None),
        )
        .properties(width=640, height=480)
        .configure(background="transparent", padding=0)
        .configure_view(stroke=None)
    )
    return vl_convert.vegalite_to_vega(chart.to_dict())


@cache
def library() -> str:
    """Return Vega and vega-embed as one self-contained script.

    Bundling takes seconds, so the script is kept in a file; a damaged file, or one of another version, is replaced.
    """
    kept = SCRIPTS / f"vega-embed-{metadata.version('vl-convert-python')}.js"
    if kept.is_file():
        sha256, _, script = kept.read_text(encoding="utf-8").partition("\n")
        if stamps.sha256_bytes(script.encode()) == sha256:
            return script
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    write_text(kept, f"{stamps.sha256_bytes(script.encode())}\n{script}")
    return script


def data(evidence: Evidence) -> dict[str, Any]:
    """Return the data of page.js: images in columns, the decisions of each run, colourings, and a map per backbone."""
    table, classes, found = evidence.table, evidence.table.classes, map_images(evidence)
    number = {name: place for place, name in enumerate(classes)}
    cell = {image_id: place for place, image_id in enumerate(evidence.thumbnails.image_id[: found.pictured])}
    place_of = {table.image_id[row]: place for place, row in enumerate(found.rows)}
    # Backbones may have skipped different validation images.
    judged = sorted(
        {place_of[image_id] for one in evidence.decided for image_id in one.image_id if image_id in place_of}
    )
    runs = [
        {"title": result.title, **_decided(one, place_of, judged)}
        for result, one in zip(evidence.verdict.results, evidence.decided, strict=True)
    ]
    return {
        "images": list(place_of),
        "label": [number[table.label[row]] for row in found.rows],
        "split": [list(SPLITS).index(table.split[row]) for row in found.rows],
        "cell": [cell.get(image_id, -1) for image_id in place_of],
        "sprite": {"columns": evidence.thumbnails.columns, "cell": evidence.thumbnails.cell},
        # Pairs, not objects: JavaScript reorders keys that look like numbers.
        "classes": list(zip(classes, itertools.cycle(CLASS_COLOURS), strict=False)),
        "splits": list(SPLITS.items()),
        "outcomes": list(OUTCOMES.items()),
        "judged": judged,
        "runs": runs,
        "maps": (maps := list(_maps(evidence, place_of))),
        "spec": spec(max((len(one["row"]) for one in maps), default=0)),
    }


def _maps(evidence: Evidence, place_of: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Yield every backbone with the images on its map and their positions."""
    for backbone, survey in evidence.surveys.items():
        place = np.array([place_of.get(image_id, -1) for image_id in survey.image_id], int)
        x, y = np.rint(survey.position[place >= 0] * GRID).astype(int).T.tolist()
        yield {"backbone": backbone, "row": place[place >= 0].tolist(), "x": x, "y": y}


def _decided(predictions: Predictions, place_of: Mapping[str, int], judged: Sequence[int]) -> dict[str, list[int]]:
    """Return the decided class and its probability in percent for each image, -1 where the run has no prediction."""
    rows = [row for row, image_id in enumerate(predictions.image_id) if image_id in place_of]
    decided, sure = predictions.decision()[rows], np.rint(100 * predictions.of_decision()[rows]).astype(int)
    place = np.searchsorted(judged, [place_of[predictions.image_id[row]] for row in rows])
    columns = {"decided": np.full(len(judged), -1), "percent": np.zeros(len(judged), int)}
    columns["decided"][place], columns["percent"][place] = decided, sure
    return {name: column.tolist() for name, column in columns.items()}


def embedded_json(content: object) -> Markup:
    """Return JSON that is safe inside a script element: no character in it can end the element."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    safe = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return Markup(safe.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))  # noqa: S704  # escaped above
