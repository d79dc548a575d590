"""SECTIONS: functions Evidence -> PageSection, or None if there is nothing to show, in the order of the page.

To add one: write a decorated function here; its position in this file is its position on the page.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.quality import files
from pipeline.report import charts, embedding_map, findings
from pipeline.report.evidence import Evidence
from pipeline.report.galleries import galleries
from pipeline.report.provenance import origins
from pipeline.report.rendering import render
from pipeline.verdict.chance import chance_level
from pipeline.verdict.schema import Result, Verdict
from pipeline.verdict.wording.factors import crossover_sentence


@dataclass(frozen=True)
class PageSection:
    """One part of the page."""

    anchor: str
    title: str
    body: Markup


MOST_ROWS = 300
"""The most rows of a table on the page."""
SectionBuilder = Callable[[Evidence], PageSection | None]
_REGISTRY: list[SectionBuilder] = []
SECTIONS: Sequence[SectionBuilder] = _REGISTRY


def _section(function: SectionBuilder) -> SectionBuilder:
    _REGISTRY.append(function)
    return function


@_section
def accuracy(evidence: Evidence) -> PageSection:
    """Show every run's score with its interval."""
    verdict = evidence.verdict
    chance = chance_level(verdict.metric, verdict.test_images)
    caption = (
        f"The dashed line is the largest class: always predicting {chance.largest_class!r} would reach "
        f"{chance.score:.1%}."
    )
    body = render("figure.html.j2", picture=charts.accuracy(verdict), caption=caption)
    return PageSection("scores", "How well each run does on the test images", body)


@_section
def factors(evidence: Evidence) -> PageSection:
    """Give the numbers on labels, similarity of the tasks and compute."""
    return PageSection("factors", "What decides for your data", render("factors.html.j2", verdict=evidence.verdict))


@_section
def cost(evidence: Evidence) -> PageSection:
    """Show score against compute."""
    caption = (
        f"{_front_sentence(evidence.verdict)}The cost of every frozen head includes the pass over the images that made "
        "the embeddings, although all heads share it: that is what one head alone would cost."
    )
    return PageSection(
        "cost", "What it cost", render("figure.html.j2", picture=charts.cost(evidence.verdict), caption=caption)
    )


def _front_sentence(verdict: Verdict) -> str:
    front = [result.title for result in verdict.results if result.on_front]
    if len(front) > 1:
        return "The dashed line joins the runs that no other run beats in both score and compute (the Pareto front). "
    if len(verdict.results) > 1:
        return f"No other run scores better or takes less compute than {front[0]}. "
    return ""


@_section
def results(evidence: Evidence) -> PageSection:
    """Show one table of all runs and all their numbers, and the notes on runs."""
    verdict = evidence.verdict
    pairs = {
        result.run: verdict.pair(result.run, verdict.best_head)
        for result in verdict.results
        if result.run != verdict.best_head
    }
    numbered = sorted(enumerate(verdict.results), key=lambda one: -one[1].test[verdict.metric].value)
    notes = [note for note in verdict.notes if note not in set(evidence.data_notes)]
    body = render("results.html.j2", verdict=verdict, results=numbered, pairs=pairs, notes=notes, most=MOST_ROWS)
    return PageSection("runs", "All runs", body)


@_section
def differences(evidence: Evidence) -> PageSection | None:
    """Show paired differences to the best head in a chart, and all pairs in a table."""
    verdict = evidence.verdict
    if not verdict.pairs:
        return None
    titles = {result.run: result.title for result in verdict.results}
    body = render(
        "differences.html.j2", picture=charts.differences(verdict), verdict=verdict, titles=titles, most=MOST_ROWS
    )
    return PageSection("differences", "Against the best frozen head", body)


@_section
def confusion(evidence: Evidence) -> PageSection:
    """Show which classes are confused with which."""
    verdict, classes = evidence.verdict, evidence.table.classes
    best = [verdict.of(run) for run in (verdict.best_head, verdict.best_plan) if run is not None]
    picture = charts.confusion(verdict.results, classes) if len(classes) <= charts.MOST_CLASSES else None
    hardest = _hardest(best[0], len(verdict.results))
    body = render("confusion.html.j2", picture=picture, best=best, results=verdict.results, classes=hardest)
    return PageSection("confusion", "Which classes are confused", body)


def _hardest(best: Result, runs: int) -> list[str]:
    """Return the classes that fit in a table of so many runs; if not all do, those with the lowest recall."""
    recall = {name: found["recall"].value for name, found in best.detail["by_class"].items()}
    room = max(1, MOST_ROWS // runs)
    return list(recall) if len(recall) <= room else sorted(recall, key=lambda name: recall[name])[:room]


@_section
def calibration(evidence: Evidence) -> PageSection:
    """Show whether probabilities match frequencies."""
    caption = (
        "Test images by the probability of their predicted class, in fifteen bins. Larger points stand for more "
        "images; whiskers are 95% intervals. On the diagonal, a run is right as often as its probabilities say."
    )
    picture = charts.calibration(evidence.verdict.results)
    body = render("figure.html.j2", picture=picture, caption=caption)
    return PageSection("calibration", "Whether the probabilities can be believed", body)


@_section
def learning(evidence: Evidence) -> PageSection | None:
    """Show loss and validation score by epoch of every plan."""
    epochs = [
        (result.title, number, epoch["loss"], epoch["validation"])
        for result, run in zip(evidence.verdict.results, evidence.finished, strict=True)
        for number, epoch in enumerate(run.stamp.facts.get("epochs", []), start=1)
    ]
    if not epochs:
        return None
    caption = "The epoch with the best validation score is kept; the test images play no part in that choice."
    body = render("figure.html.j2", picture=charts.learning(epochs), caption=caption)
    return PageSection("learning", "How fine-tuning went", body)


@_section
def label_efficiency(evidence: Evidence) -> PageSection | None:
    """Show the scores with fewer labels, and from how many labels on a plan stays ahead."""
    curves = evidence.verdict.curves
    if not curves:
        return None
    body = render("curves.html.j2", pictures=[
        (backbone, charts.label_efficiency(curve), curve, [crossover_sentence(one, curve) for one in curve.crossovers])
        for backbone, curve in curves.items()
    ])  # fmt: skip
    return PageSection("labels", "What more labels bring", body)


@_section
def embeddings(evidence: Evidence) -> PageSection | None:
    """Show the map of all images."""
    if not evidence.surveys:
        return None
    body = render(
        "map.html.j2",
        verdict=evidence.verdict,
        surveys=evidence.surveys,
        shown=embedding_map.map_images(evidence),
        images=len(evidence.table),
        pictured=len(evidence.thumbnails.image_id),
    )
    return PageSection("map", "A map of the embeddings", body)


@_section
def worst(evidence: Evidence) -> PageSection:
    """Show the worst errors, and the images on which the best head and plan differ."""
    return PageSection("images", "Images worth a look", render("galleries.html.j2", galleries=galleries(evidence)))


@_section
def quality(evidence: Evidence) -> PageSection | None:
    """Show the findings of the data checks, the notes on the data, and the images that were skipped."""
    verdict, kinds, notes = evidence.verdict, findings.check_results(evidence), evidence.data_notes
    if not kinds and not notes and not any(verdict.skipped.values()):
        return None
    body = render(
        "quality.html.j2", verdict=verdict, kinds=kinds, notes=notes, list=files.LIST.as_posix(), most=MOST_ROWS
    )
    return PageSection("quality", "Quality of the data", body)


@_section
def provenance(evidence: Evidence) -> PageSection:
    """Show the files behind the numbers."""
    body = render("provenance.html.j2", verdict=evidence.verdict, origins=origins(evidence))
    return PageSection("origin", "Where the numbers come from", body)
