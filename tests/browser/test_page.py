"""The page in a real Chromium: `make test-browser`."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.report import page as report_page
from pipeline.report.evidence import Evidence
from tests.browser import chromium
from tests.report.examples import CELL, colour, evidence

playwright_api = pytest.importorskip(
    "playwright.sync_api", reason="make test-browser needs pip install 'headswap[browser]'"
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium.PATH is None, reason="needs Chromium: apt install chromium, or CHROMIUM=/path/to/it"),
]

LONG = "x" * 300
RIGHT_TO_LEFT = "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627"
NASTY = ("<img src=x onerror=document.title='hacked'>", "</script><script>document.title='hacked'</script>", "=cmd()",
         RIGHT_TO_LEFT, LONG)  # fmt: skip
PLOTS = 7
"""Charts that are drawn beforehand."""

Page = Any
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium.PATH, args=chromium.ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open a page of some evidence; whatever it complains of, or asks the network for, fails the test."""
    complaints: list[str] = []
    contexts = []

    def opened(given: Evidence, width: int = 1200, scheme: str = "light") -> Page:
        file = tmp_path / "index.html"
        file.write_text(report_page.page(given), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda one: None if one.url.startswith(("data:", "file:")) else complaints.append(one.url))
        page.goto(file.as_uri())
        page.wait_for_selector("#map-canvas canvas", timeout=10_000)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def visible(page: Page, selector: str) -> list[Any]:
    return [one for one in page.query_selector_all(selector) if one.is_visible()]


def pixel_of_card(page: Page) -> tuple[int, int, int]:
    """Return the colour in the middle of the picture that the card shows."""
    from io import BytesIO

    from PIL import Image

    shot = Image.open(BytesIO(page.locator("#map-thumb").screenshot())).convert("RGB")
    found = shot.getpixel((shot.width // 2, shot.height // 2))
    assert isinstance(found, tuple)
    return int(found[0]), int(found[1]), int(found[2])


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (380, "dark")])
def test_every_plot_is_drawn_and_nothing_overflows(show: Open, width: int, scheme: str) -> None:
    page = show(evidence(), width, scheme)
    drawn = visible(page, "figure svg")
    assert len(drawn) == PLOTS
    assert all(one.bounding_box()["width"] > 200 and one.bounding_box()["height"] > 80 for one in drawn)
    coloured = page.evaluate("""() => {
        const canvas = document.querySelector("#map-canvas canvas");
        return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.filter((_, i) => i % 4 == 3)
            .some((alpha) => alpha > 0);
    }""")
    assert coloured
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("width", "hidden"), [(1180, False), (700, True)])
def test_the_table_of_all_runs_fits_on_a_screen_and_elsewhere_a_shadow_shows_that_it_scrolls(
    show: Open, width: int, hidden: bool
) -> None:
    page = show(evidence(titles=("logreg", "rbf_svm", "last_blocks")), width)
    box = page.locator("#runs .scroll")
    assert box.evaluate("(one) => one.scrollWidth > one.clientWidth") is hidden
    assert "scroll" in box.evaluate("(one) => getComputedStyle(one).backgroundAttachment")


def test_names_that_are_markup_stay_names_and_fit_on_a_phone(show: Open) -> None:
    page = show(
        evidence(images=80, classes=NASTY, titles=(*NASTY[:3], LONG), ids=[f"{name}.png" for name in NASTY]), 380
    )
    assert "hacked" not in page.title()
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    for name in NASTY:
        assert page.get_by_text(name, exact=True).count()
    page.focus("#map-canvas")
    page.keyboard.press("ArrowRight")
    assert NASTY[0] in page.inner_text("#map-words")
    card, canvas = page.locator("#map-card").bounding_box(), page.locator("#map-canvas").bounding_box()
    assert canvas["x"] <= card["x"]
    assert card["x"] + card["width"] <= canvas["x"] + canvas["width"]


def test_sorting_sorts_and_sorts_back(show: Open) -> None:
    page = show(evidence(titles=("logreg", "last", "other", "another")))
    cells = "#runs tbody tr td:nth-child(3)"

    def values() -> list[float]:
        return [float(one.get_attribute("data-value")) for one in page.query_selector_all(cells)]

    heading = page.get_by_role("button", name="Test accuracy")
    heading.click()
    assert values() == sorted(values(), reverse=True)
    assert page.locator("#runs th[aria-sort]").get_attribute("aria-sort") == "descending"
    heading.focus()
    page.keyboard.press("Enter")
    assert values() == sorted(values())
    page.get_by_role("button", name="Run", exact=True).click()
    names = [one.get_attribute("data-value") for one in page.query_selector_all("#runs tbody tr td:first-child")]
    assert names == sorted(names, reverse=True)


def test_pointing_at_a_point_shows_its_image_its_label_and_what_each_run_says(show: Open) -> None:
    given = evidence(images=40, titles=[f"run {number}" for number in range(8)])
    page = show(given)
    page.locator("#map-canvas").scroll_into_view_if_needed()
    box = page.locator("#map-canvas").bounding_box()
    for place in (0, 5):
        image_id = given.thumbnails.image_id[place]
        row = list(given.table.image_id).index(image_id)
        x, y = given.surveys["tiny"].position[row]
        page.mouse.move(box["x"] + 8 + x * (box["width"] - 16), box["y"] + 8 + (1 - y) * (box["height"] - 16))
        page.wait_for_selector("#map-card:not([hidden])")
        words = page.inner_text("#map-words")
        assert image_id in words
        assert f"{given.table.label[row]}, test" in words
        for result, decided in zip(given.verdict.results, given.decided, strict=True):
            at = list(decided.image_id).index(image_id)
            assert f"{result.title}: {decided.classes[decided.decision()[at]]}" in words
        card, last = page.locator("#map-card").bounding_box(), page.locator("#map-words li").last.bounding_box()
        assert last["y"] + last["height"] <= card["y"] + card["height"]
        assert page.locator("#map-thumb").bounding_box()["width"] == CELL
        assert max(abs(one - other) for one, other in zip(pixel_of_card(page), colour(place), strict=True)) <= 3
    page.mouse.move(box["x"] + 1, box["y"] + 1)
    page.wait_for_selector("#map-card", state="hidden")


def test_the_map_can_be_walked_with_the_keyboard_and_coloured_by_anything(show: Open) -> None:
    given = evidence(images=40)
    page = show(given)
    page.focus("#map-canvas")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert given.table.image_id[1] in page.inner_text("#map-words")
    assert "no run predicts it" in page.inner_text("#map-words")
    assert not page.locator("#map-thumb").is_visible()
    page.keyboard.press("ArrowLeft")
    assert given.table.image_id[0] in page.inner_text("#map-words")
    page.keyboard.press("Escape")
    assert not page.locator("#map-card").is_visible()
    seen = {}
    for choice in ("class", "split", "0"):
        page.select_option("#map-colour", choice)
        seen[choice] = page.inner_text("#map-legend").split()
    assert seen == {"class": ["a", "b"], "split": ["train", "val", "test"], "0": ["right", "wrong", "not", "predicted"]}


def test_classes_whose_names_are_numbers_keep_their_order(show: Open) -> None:
    given = evidence(images=48, classes=[*map(str, range(12)), "__proto__"])
    page = show(given)
    assert page.inner_text("#map-legend").split() == given.table.classes
    page.focus("#map-canvas")
    for label in given.table.label:
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#map-words").split("\n")[1].startswith(f"{label}, ")


def test_a_run_leads_to_the_files_behind_it(show: Open) -> None:
    page = show(evidence())
    page.get_by_role("link", name="run0").click()
    assert page.locator("#origin-0 table").first.is_visible()
    assert "c0ffee" in page.inner_text("#origin-0")


def test_printing_opens_what_is_folded(show: Open) -> None:
    page = show(evidence())
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('details')].every((one) => one.open)")


def test_several_backbones_have_a_map_each(show: Open) -> None:
    given = evidence()
    turned = dataclasses.replace(given.surveys["tiny"], image_id=given.surveys["tiny"].image_id[::-1])
    page = show(dataclasses.replace(given, surveys={"tiny": given.surveys["tiny"], "other": turned}))
    page.select_option("#map-backbone", "other")
    page.focus("#map-canvas")
    page.keyboard.press("ArrowRight")
    assert given.table.image_id[-1] in page.inner_text("#map-words")


def test_fifty_thousand_points_are_drawn_and_found(show: Open) -> None:
    given = evidence(images=50_000, pictured=3_000)
    page = show(given)
    page.focus("#map-canvas")
    page.keyboard.press("ArrowLeft")
    assert given.table.image_id[-1] in page.inner_text("#map-words")
