"""reports/index.html: one file that needs no other file and no network, and runs only its own scripts."""

import base64
import hashlib

from markupsafe import Markup

from pipeline.core.atomic import write_text
from pipeline.core.errors import first_five
from pipeline.report import embedding_map
from pipeline.report.evidence import Evidence
from pipeline.report.rendering import asset, render
from pipeline.report.sections import SECTIONS
from pipeline.verdict import schema
from pipeline.verdict.wording.answer import headline


def write(evidence: Evidence) -> None:
    """Write the page."""
    write_text(schema.PAGE, page(evidence))


def page(evidence: Evidence) -> str:
    """Return the page.

    Its content policy (https://www.w3.org/TR/CSP3/) allows only scripts whose hashes it lists, and no requests. So a
    class or file name that contains markup stays harmless even if a template forgot to escape it.
    """
    sections = [section for function in SECTIONS if (section := function(evidence))]
    scripts = [embedding_map.library(), asset("page.js")]
    return render(
        "page.html.j2",
        verdict=evidence.verdict,
        headline=headline(evidence.verdict),
        notes=first_five(evidence.verdict.notes, "notes"),
        warnings=set(evidence.verdict.notes) - set(evidence.search_notes),
        sections=sections,
        style=Markup(asset("style.css")),  # noqa: S704  # ours
        scripts=[Markup(script) for script in scripts],  # noqa: S704  # ours and the library's
        hashes=[_source_hash(script) for script in scripts],
        data=embedding_map.embedded_json(embedding_map.data(evidence)),
        sprite=base64.b64encode(embedding_map.map_images(evidence).sprite).decode(),
    )


def _source_hash(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
