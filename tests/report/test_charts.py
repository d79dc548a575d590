"""Every chart shows its data, and the page has the same bytes every time it is drawn."""

import hashlib
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import altair as alt
import pytest
import vl_convert

from pipeline.report import charts, drawing, labels, page, sections
from pipeline.report.evidence import Evidence
from tests.conftest import REPOSITORY
from tests.report.examples import evidence
from tests.soak import soak

FRESH = """
import hashlib, sys
from pipeline.report import page
from tests.report.examples import evidence
for _ in range(int(sys.argv[1])):
    print(hashlib.sha256(page.page(evidence()).encode()).hexdigest())
"""


@pytest.fixture
def often() -> Iterator[None]:
    """Make threads, if there are any, switch as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Drawing:
    """The content of an SVG: its description, its axes, and the number of marks of each kind."""

    def __init__(self, text: str) -> None:
        self.text = text
        root = ET.fromstring(text)
        self.description = root.get("aria-label")
        labelled = [one for one in root.iter() if one.get("aria-roledescription")]
        axes = [one.get("aria-label", "") for one in labelled if one.get("aria-roledescription") == "axis"]
        self.titles = {found[1] if (found := re.search(r"titled '(.*)' for a", axis)) else None for axis in axes}
        self.runs = {
            run for one in labelled for run in re.findall(r"(?:run|plan): ([^;]*)", one.get("aria-label", ""))
        } | {found for one in labelled for found in re.findall(r"^Title text '(.*)'$", one.get("aria-label", ""))}
        self.marks = Counter({
            kind: count
            for kind in ("rule", "symbol", "line", "text", "rect", "area")
            if (count := sum(len(group) for group in root.iter() if f"mark-{kind} role-mark" in group.get("class", "")))
        })  # fmt: skip


def pictures(text: str) -> list[Drawing]:
    return [Drawing(svg) for svg in re.findall(r'<svg role="img".*?</svg>', text, re.DOTALL)]


def expected(given: Evidence) -> dict[str, tuple[set[str | None], dict[str, int], set[str]]]:
    """Return for every chart, by its description: the titles of its axes, its marks, and the runs that they name."""
    results, n = given.verdict.results, len(given.verdict.results)
    runs, plans = {one.title for one in results}, {one.title for one in results if one.kind == "plan"}
    inner = [None] if n > 1 else list[None]()  # axes between panels have no title
    epochs = sum(len(run.stamp.facts.get("epochs", [])) for run in given.finished)
    bins, cells = (sum(len(one.detail[part]) for one in results) for part in ("calibration", "confusion"))
    reached = [one for curve in given.verdict.curves.values() for some in curve.reached.values() for one in some]
    every: dict[str, Any] = {
        "Test accuracy of every run": (
            {"test accuracy (%), with 95% interval", None}, {"rule": n + 1, "symbol": n}, runs,
        ),
        "Test score against compute, with the Pareto front": (
            {"CPU seconds from images to predictions (log)", "test accuracy (%)"},
            {"line": 1, "symbol": n, "text": n}, runs,
        ),
        "Paired differences to the best frozen head": (
            {"points of accuracy against logreg", None}, {"rule": 2 + n - 1, "symbol": n - 1}, plans,
        ),
        "Confusion matrix of every run": ({"decided", "true", *inner}, {"rect": cells, "text": cells}, runs),
        "Accuracy by confidence of every run": (
            {"confidence (%)", "right (%)", *inner}, {"line": n, "rule": bins, "symbol": bins}, runs,
        ),
        "Training loss and validation score of every plan, by epoch": (
            {"epoch", "training loss", "validation score"}, {"line": 2 * len(plans), "symbol": 2 * epochs}, plans,
        ),
        "Test accuracy by number of labels": (
            {"training images with a label (log)", "test accuracy (%), with 95% interval"},
            {"area": n, "line": n, "symbol": len(reached)}, runs,
        ),
    }  # fmt: skip
    if not plans:
        for comparing in ("Paired differences to the best frozen head", "Training loss and validation score of every "
                          "plan, by epoch"):  # fmt: skip
            del every[comparing]
    return every


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    "titles", [("logreg",), ("logreg", "last", "full, from block 3"), *soak([(("logreg", "last"),)])]
)
def test_every_chart_has_its_axes_a_mark_for_every_row_and_no_scale_without_values(titles: tuple[str, ...]) -> None:
    given = evidence(images=20 * len(titles), classes=("a", "b", "c"), titles=titles)
    wanted = expected(given)
    found = pictures(page.page(given))
    assert Counter(one.description for one in found) == dict.fromkeys(wanted, len(drawing.CHART_SIZES))
    for one in found:
        assert (one.titles, one.marks, one.runs) == wanted[str(one.description)], one.description
        assert not re.search("Infinity|NaN|undefined", one.text), one.description


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(("drawings", "fresh_ones"), [(2, 1), *soak([(10, 10)])])
def test_the_page_is_the_same_bytes_whenever_it_is_drawn_here_and_in_a_fresh_process(
    drawings: int, fresh_ones: int
) -> None:
    command = [sys.executable, "-c", FRESH, str(fresh_ones)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as fresh:
        here = [hashlib.sha256(page.page(evidence()).encode()).hexdigest() for _ in range(drawings)]
        there, _ = fresh.communicate()
    assert Counter([*here, *there.split()]) == {here[0]: drawings + fresh_ones}


def test_charts_are_built_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    built_in, real = set(), alt.TopLevelMixin.to_dict

    def noting(self: Any, *args: Any, **named: Any) -> Any:
        built_in.add(threading.current_thread())
        return real(self, *args, **named)

    monkeypatch.setattr(alt.TopLevelMixin, "to_dict", noting)
    monkeypatch.setattr(vl_convert, "vegalite_to_svg", lambda spec: "")
    page.page(evidence())
    assert built_in == {threading.main_thread()}


def test_no_name_in_the_chart_of_cost_hides_another_or_a_point() -> None:
    names = ["logreg", "rbf_svm", "random_forest", "knn", "mlp"]
    at = [(100.0, 100.0), (104.0, 101.0), (120.0, 96.0), (98.0, 130.0), (500.0, 20.0)]
    places = [labels.PLACES[number] for number in labels.place_labels(names, at)]
    boxes = [labels._box(name, point, place) for name, point, place in zip(names, at, places, strict=True)]
    points = [(x - 4, y - 4, x + 4, y + 4) for x, y in at]
    assert places[-1] == labels.PLACES[0]
    assert not any(labels._overlaps(box, [*boxes[:number], *points]) for number, box in enumerate(boxes))


def with_kinds(given: Evidence, *kinds: str) -> Evidence:
    results = [replace(one, kind=kind) for one, kind in zip(given.verdict.results, kinds, strict=True)]
    best_plan = next((one.run for one in results if one.kind == "plan"), None)
    return replace(given, verdict=replace(given.verdict, results=results, best_plan=best_plan))


def test_the_legend_names_only_the_kinds_that_a_chart_shows() -> None:
    heads = with_kinds(evidence(titles=("logreg", "knn")), "head", "head").verdict
    both = evidence().verdict
    for chart in (charts.accuracy, charts.cost, charts.differences):
        assert "fine-tuned" not in chart(heads)
        assert "fine-tuned" in chart(both)


def test_the_score_chart_marks_the_chance_level_and_its_caption_gives_it() -> None:
    given = evidence()
    unequal = replace(given, verdict=replace(given.verdict, test_images={"a": 30, "b": 10}))
    body = str(sections.accuracy(unequal).body)  # type: ignore[union-attr]
    assert "The dashed line is the largest class: always predicting &#39;a&#39; would reach 75.0%." in body
    (wide, _) = pictures(body)
    assert re.search(r'aria-label="at: 75"', wide.text)


def test_the_last_panel_of_every_column_has_a_horizontal_axis_and_no_empty_cell_has_one() -> None:
    seen = []

    def build(some: drawing.Records, axes: drawing.Axes) -> drawing.Chart:
        seen.append((some[0]["run"], axes.first, axes.last))
        return alt.Chart(drawing.data(some)).mark_point().encode(x=axes.x(alt.X("x:Q")), y=axes.y(alt.Y("x:Q")))

    chart = drawing.panels(build, [{"run": run, "x": 1} for run in "cab"], "cab", 2).to_dict()
    assert seen == [("c", True, False), ("a", False, True), ("b", True, True)]
    assert [one["title"]["text"] for one in chart["concat"]] == ["c", "a", "b"]
    hidden = {"labels": False, "title": None}
    assert [one["encoding"]["x"]["axis"] == hidden for one in chart["concat"]] == [True, False, False]
    assert [one["encoding"]["y"]["axis"] == hidden for one in chart["concat"]] == [False, True, False]


def test_panels_of_every_chart_are_in_the_order_of_the_results() -> None:
    given = with_kinds(evidence(titles=("zeta", "alpha", "last")), "head", "head", "plan")
    given = replace(given, verdict=replace(given.verdict, best_head=given.verdict.results[1].run))
    for section in (sections.confusion, sections.calibration):
        (wide, _) = pictures(str(section(given).body))  # type: ignore[union-attr]
        assert re.findall(r"Title text '(\w+)'", wide.text) == ["zeta", "alpha", "last"]


def test_the_diagonal_of_calibration_reaches_from_0_to_100() -> None:
    (wide, _) = pictures(charts.calibration(evidence(titles=("logreg",)).verdict.results))
    (line,) = re.findall(r'aria-roledescription="line mark" d="([^"]*)"|d="([^"]*)"[^>]*stroke-dasharray', wide.text)
    assert "M0,150L190,0" in line


@pytest.mark.parametrize(
    ("on_front", "words"),
    [
        ((True, True), "The dashed line joins the runs"),
        ((True, False), "No other run scores better or takes less compute than logreg."),
    ],
)
def test_the_caption_speaks_of_the_front_only_where_it_is_drawn(on_front: tuple[bool, bool], words: str) -> None:
    given = evidence()
    results = [replace(one, on_front=front) for one, front in zip(given.verdict.results, on_front, strict=True)]
    body = str(sections.cost(replace(given, verdict=replace(given.verdict, results=results))).body)  # type: ignore[union-attr]
    assert words in body
    assert ("dashed line" in body) == all(on_front)
