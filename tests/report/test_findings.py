"""The findings of the data checks on the page."""

from dataclasses import replace

import pytest

from pipeline.quality import files
from pipeline.quality.checks import CHECKS
from pipeline.quality.findings import CheckResult, Finding
from pipeline.report import findings
from pipeline.report.evidence import Evidence
from pipeline.report.galleries import MOST
from pipeline.report.sections import Section, quality
from tests.report.examples import evidence

NASTY = "<img src=x onerror=alert(1)>.png"


def with_findings(given: Evidence, *found: Finding) -> Evidence:
    every = {name: CheckResult(found if name == "near_duplicate" else []) for name in CHECKS}
    return replace(given, quality=files.content(given.table, every, CHECKS))


def section(given: Evidence) -> str:
    made = quality(given)
    assert isinstance(made, Section)
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


def test_names_of_images_stay_text() -> None:
    given = evidence(images=4, ids=["0.png", "1.png", "2.png", NASTY])
    assert NASTY not in section(with_findings(given, Finding(3, 2, 1.0, NASTY)))


@pytest.mark.parametrize("row", [0, 39])
def test_an_image_without_a_picture_is_counted_and_not_shown(row: int) -> None:
    given = evidence(pictured=0)
    (check,) = [one for one in findings.check_results(with_findings(given, Finding(row))) if one["images"]]
    assert check["pictures"] == []
