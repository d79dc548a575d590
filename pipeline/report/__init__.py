"""The report: an ordered list of sections, each a function from the Verdict, in one self-contained page.

To add a section: one decorated function in `sections.py`.
"""

from pipeline import verdict
from pipeline.atomic import write_text
from pipeline.report.rendering import render
from pipeline.report.sections import SECTIONS
from pipeline.verdict import Verdict


def write(judged: Verdict) -> None:
    """Write reports/index.html; it needs no network, no script and no other file."""
    sections = [section for function in SECTIONS if (section := function(judged))]
    write_text(verdict.PAGE, render("page.html.j2", verdict=judged, sections=sections))
