"""The findings of the data checks on the page."""

from dataclasses import replace

import pytest

from pipeline.quality import files
from pipeline.quality.checks import CHECKS
from pipeline.quality.findings import CheckResult, Finding
from pipeline.report import findings, page
from pipeline.report.evidence import Evidence
from pipeline.report.galleries import MOST
from pipeline.report.sections import PageSection, quality, results
from pipeline.verdict.wording import notes
from tests.report.examples import evidence

NASTY = "<img src=x onerror=alert(1)>.png"


def with_findings(given: Evidence, *found: Finding) -> Evidence:
    every = {name: CheckResult(found if name == "near_duplicate" else []) for name in CHECKS}
    return replace(given, quality=files.content(given.table, every, CHECKS))


def section(given: Evidence) -> str:
    made = quality(given)
    assert isinstance(made, PageSection)
    return str(made.body)


def test_where_nothing_was_found_every_check_says_so() -> None:
    text = section(with_findings(evidence()))
    assert text.count("nothing found") == len(CHECKS)
    assert "<figure>" not in text


def test_the_first_dozen_with_a_picture_are_shown_and_the_list_is_named() -> None:
    given = evidence(images=80)
    pictured = [row for row, name in enumerate(given.table.image_id) if name in given.thumbnails.image_id]
    text = section(with_findings(given, *(Finding(row, row - 1, 0.98765, "keep") for row in [0, *pictured])))
    assert text.count("<figure>") == MOST
    assert f"Nearly the same pixels: {MOST} of {len(pictured) + 1} images" in text
    assert "0.9877; keep" in text
    assert "reports/quality.csv" in text


def test_notes_about_the_data_stand_with_the_data_and_those_about_runs_with_the_runs() -> None:
    given = evidence(images=40, classes=("a", "b", "c"))
    advice, absent = "C=1 is the smallest of the 3 tried.", notes.of_classes({"c": 0})
    run, *others = given.finished
    noted = replace(run, stamp=replace(run.stamp, facts={**run.stamp.facts, "notes": [advice]}))
    counted = replace(given.verdict, test_images={"a": 5, "b": 5, "c": 0}, notes=[*absent, f"logreg: {advice}"])
    changed = replace(given, finished=[noted, *others], verdict=counted)
    assert (changed.data_notes, changed.search_notes) == (absent, [f"logreg: {advice}"])
    assert advice not in section(changed)
    assert "No test image is of class" in section(changed)
    runs = str(results(changed).body)  # type: ignore[union-attr]
    assert (advice in runs, "No test image is of class" in runs) == (True, False)
    header = page.page(changed).split("</header>")[0]
    assert '<li class="warning">No test image is of class' in header
    assert f"<li>logreg: {advice}</li>" in header


def test_names_of_images_stay_text() -> None:
    given = evidence(images=4, ids=["0.png", "1.png", "2.png", NASTY])
    assert NASTY not in section(with_findings(given, Finding(3, 2, 1.0, NASTY)))


@pytest.mark.parametrize("row", [0, 39])
def test_an_image_without_a_picture_is_counted_and_not_shown(row: int) -> None:
    given = evidence(pictured=0)
    (check,) = [one for one in findings.check_results(with_findings(given, Finding(row))) if one["images"]]
    assert check["pictures"] == []
