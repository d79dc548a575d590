"""Every chart shows its data, and the page has the same bytes every time it is drawn."""

import hashlib
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import altair as alt
import pytest
import vl_convert

from pipeline.report import charts, page
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
    epochs = sum(len(run.stamp.facts.get("epochs", [])) for run in given.finished)
    bins, cells = (sum(len(one.detail[part]) for one in results) for part in ("calibration", "confusion"))
    reached = [one for curve in given.verdict.curves.values() for some in curve.reached.values() for one in some]
    every: dict[str, Any] = {
        "Test accuracy of every run": (
            {"test accuracy (%), with 95% interval", None}, {"rule": n, "symbol": n}, runs,
        ),
        "Test score against compute, with the Pareto front": (
            {"CPU seconds from images to predictions (log)", "test accuracy (%)"},
            {"line": 1, "symbol": n, "text": n}, runs,
        ),
        "Paired differences to the best frozen head": (
            {"points of accuracy against logreg", None}, {"rule": 2 + n - 1, "symbol": n - 1}, plans,
        ),
        "Confusion matrix of every run": ({"decided", "true"}, {"rect": cells, "text": cells}, runs),
        "Accuracy by confidence of every run": (
            {"confidence (%)", "right (%)"}, {"line": n, "rule": bins, "symbol": bins}, runs,
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
    assert Counter(one.description for one in found) == dict.fromkeys(wanted, len(charts.LAYOUTS))
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
