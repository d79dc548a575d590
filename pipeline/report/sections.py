"""SECTIONS: ordered functions Verdict -> Section, or None where there is nothing to show."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.evaluation import efficiency
from pipeline.report import charts
from pipeline.report.rendering import render
from pipeline.verdict import Verdict


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    title: str
    body: Markup


Function = Callable[[Verdict], Section | None]
_REGISTRY: list[Function] = []
SECTIONS: Sequence[Function] = _REGISTRY


def _section(function: Function) -> Function:
    _REGISTRY.append(function)
    return function


@_section
def accuracy(verdict: Verdict) -> Section:
    """Show one picture."""
    body = render("figure.html.j2", picture=charts.accuracy(verdict), caption="")
    return Section("How well each run does on the test images", body)


@_section
def results(verdict: Verdict) -> Section:
    """Show one table of everything."""
    ordered = sorted(verdict.results, key=lambda result: -result.test[verdict.metric].value)
    return Section("All runs", render("results.html.j2", verdict=verdict, results=ordered))


@_section
def differences(verdict: Verdict) -> Section | None:
    """Show paired differences to the best head."""
    if len(verdict.results) == 1:
        return None
    caption = (
        "Both runs judge the same test images, so the differences are paired: an interval that crosses zero is a "
        "difference that these images cannot show. The second dashed line is the margin worth having."
    )
    picture = charts.differences(verdict)
    return Section("Against the best frozen head", render("figure.html.j2", picture=picture, caption=caption))


@_section
def cost(verdict: Verdict) -> Section:
    """Show score against compute."""
    caption = (
        "A frozen head's cost includes the pass over the images that made the embeddings, once per head, though all "
        "heads share it: a head alone would have cost that much."
    )
    return Section("What it cost", render("figure.html.j2", picture=charts.cost(verdict), caption=caption))


@_section
def label_efficiency(verdict: Verdict) -> Section | None:
    """Show what fewer labels would have reached, and from how many on a plan is ahead."""
    if not verdict.curves:
        return None
    return Section("What more labels bring", render("curves.html.j2", pictures=[
        (backbone, charts.label_efficiency(curve), curve, [efficiency.sentence(one, curve) for one in curve.crossovers])
        for backbone, curve in verdict.curves.items()
    ]))  # fmt: skip


@_section
def skipped(verdict: Verdict) -> Section | None:
    """List images that no run saw."""
    if not any(verdict.skipped.values()):
        return None
    return Section("Images left out", render("skipped.html.j2", skipped=verdict.skipped))


@_section
def provenance(verdict: Verdict) -> Section:
    """Show the files behind the numbers."""
    return Section("Where the numbers come from", render("provenance.html.j2", verdict=verdict))
