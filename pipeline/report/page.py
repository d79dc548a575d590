"""reports/index.html: one file that needs no other, no network, and runs no script but its own."""

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
from pipeline.verdict.schema import Verdict


def write(evidence: Evidence) -> None:
    """Write the page."""
    write_text(schema.PAGE, page(evidence))


def page(evidence: Evidence) -> str:
    """Return the page.

    Its policy (https://www.w3.org/TR/CSP3/) lets run only the scripts whose hashes it names, and nothing be fetched: a
    class or a file whose name is markup stays a name, should a template ever forget to escape it.
    """
    sections = [section for function in SECTIONS if (section := function(evidence))]
    scripts = [embedding_map.library(), asset("page.js")]
    return render(
        "page.html.j2",
        verdict=evidence.verdict,
        headline=headline(evidence.verdict),
        notes=first_five(evidence.verdict.notes, "notes"),
        sections=sections,
        style=Markup(asset("style.css")),  # noqa: S704  # ours
        scripts=[Markup(script) for script in scripts],  # noqa: S704  # ours and the library's
        hashes=[_source_hash(script) for script in scripts],
        data=embedding_map.embedded_json(embedding_map.data(evidence)),
        sprite=base64.b64encode(embedding_map.shown(evidence).sprite).decode(),
    )


def headline(verdict: Verdict) -> str:
    """Return the answer; where no plan was run, and so nothing was asked, what the best head reaches."""
    if verdict.best_plan:
        return verdict.answer
    head = verdict.of(verdict.best_head)
    reached = f"{head.test[verdict.metric].value:.1%} {verdict.metric.replace('_', ' ')}"
    balanced = verdict.balanced(head)
    return f"{reached}{'' if balanced is None else f', {balanced:.1%} balanced accuracy,'} with frozen features"


def _source_hash(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
