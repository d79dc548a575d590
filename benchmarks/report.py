"""The page with 50,000 images in a real Chromium: when it is first painted, and how long pointing at an image takes."""

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, at_most
from pipeline.report import page
from tests.browser import chromium
from tests.report.examples import evidence

IMAGES = 50_000
POINTED_AT = 60

# From navigation: the first contentful paint, and the frame after the map has its points.
_PAINTED = """async () => {
  const drawn = () => {
    const canvas = document.querySelector("#map-canvas canvas");
    if (!canvas?.width) return false;
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    for (let alpha = 3; alpha < data.length; alpha += 4) if (data[alpha]) return true;
    return false;
  };
  while (!drawn()) await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  const map = performance.now();
  return [performance.getEntriesByName("first-contentful-paint")[0].startTime, map];
}"""

# What the page does between the pointer's move and the card with the image in its new place, laid out.
_POINTED = """(count) => {
  const canvas = document.querySelector("#map-canvas canvas"), card = document.getElementById("map-card");
  canvas.scrollIntoView();
  const box = canvas.getBoundingClientRect(), took = [];
  let hit = 0;
  for (let number = 0; number < count; number++) {
    const clientX = box.left + box.width * ((number * 0.37) % 1);
    const clientY = box.top + box.height * ((number * 0.61) % 1);
    const start = performance.now();
    canvas.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY, bubbles: true }));
    canvas.dispatchEvent(new MouseEvent("mousemove", { clientX, clientY, bubbles: true }));
    card.getBoundingClientRect();
    took.push(performance.now() - start);
    hit += !card.hidden;
  }
  return [took, hit];
}"""


def measure() -> Iterator[Figure]:
    """Open the page three times; the median of each figure."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # an extra

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "index.html"
        file.write_text(page.page(evidence(images=IMAGES, pictured=3_000)), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=chromium.PATH, args=chromium.ARGUMENTS)
        seen = [_opened(browser, file) for _ in range(3)]
        browser.close()
    painted, mapped, pointed, slowest = (statistics.median(values) for values in zip(*seen, strict=True))
    yield at_most(f"first paint of the page with {IMAGES:,} images", painted / 1000, "s", 3)
    yield at_most(f"its map of {IMAGES:,} points drawn", mapped / 1000, "s", 3)
    yield at_most(f"pointing at one of {IMAGES:,} points, until its card is laid out", pointed, "ms", 100)
    yield at_most(f"the slowest of {POINTED_AT} such", slowest, "ms", 100)


def _opened(browser: Any, file: Path) -> tuple[float, float, float, float]:  # noqa: ANN401  # Playwright's
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    opened.goto(file.as_uri())
    painted, mapped = opened.evaluate(_PAINTED)
    took, hit = opened.evaluate(_POINTED, POINTED_AT)
    if hit < POINTED_AT // 5:
        raise RuntimeError(f"only {hit} of {POINTED_AT} places hit a point")
    opened.close()
    return painted, mapped, statistics.median(took), max(took)
