"""The report's charts: Altair specifications, drawn to SVG here so that the page needs no script."""

import itertools
from typing import Any

import altair as alt
import vl_convert
from markupsafe import Markup

from pipeline.evaluation.comparison import Estimate
from pipeline.evaluation.efficiency import LabelEfficiency
from pipeline.verdict import Result, Verdict

# Okabe & Ito's palette: told apart by colour-blind readers, on light and on dark ground.
COLOURS = alt.Scale(domain=["frozen head", "fine-tuned"], range=["#0072b2", "#d55e00"])
SHADES = {"head": ("#0072b2", "#56b4e9", "#009e73", "#999999"), "plan": ("#d55e00", "#e69f00", "#cc79a7")}
"""Of several heads and plans in one chart."""
KIND = {"head": "frozen head", "plan": "fine-tuned"}


def accuracy(verdict: Verdict) -> Markup:
    """Every run's test score with its 95% interval, best first."""
    name = verdict.metric.replace("_", " ")
    rows = [_row(result, result.test[verdict.metric]) for result in verdict.results]
    return _forest(rows, f"test {name} (%), with 95% interval", f"Test {name} of every run")


def differences(verdict: Verdict) -> Markup:
    """Every run's paired difference to the best frozen head, with zero and the margin marked."""
    rows = [_row(result, result.difference.estimate) for result in verdict.results if result.run != verdict.best_head]
    best = next(result.title for result in verdict.results if result.run == verdict.best_head)
    lines = alt.Chart(_data([{"at": 0.0}, {"at": verdict.margin * 100}]))
    rules = lines.mark_rule(strokeDash=[4, 4], color="#888").encode(x="at:Q")
    title = f"points of {verdict.metric.replace('_', ' ')} gained or lost against {best}"
    return _forest(rows, title, "Paired differences to the best frozen head", rules)


def cost(verdict: Verdict) -> Markup:
    """Score against compute: up and to the left is better."""
    ordered = sorted(verdict.results, key=lambda result: result.cost.cpu_seconds)
    rows = [
        {**_row(result, result.test[verdict.metric]), "cpu": result.cost.cpu_seconds, "above": place % 2 == 0}
        for place, result in enumerate(ordered)
    ]
    compute = alt.X("cpu:Q", title="CPU seconds from images to predictions (log)")
    score = alt.Y("value:Q", title=f"test {verdict.metric.replace('_', ' ')} (%)")
    base = alt.Chart(_data(rows)).encode(
        x=compute.scale(type="log", nice=False, padding=60), y=score.scale(zero=False, padding=20), color=_colour()
    )
    points = base.mark_point(filled=True, size=90, opacity=1)
    # Neighbours have their names on different sides of the point, so that few overlap.
    above = base.mark_text(dy=-12, fontSize=12).encode(text="run:N").transform_filter("datum.above")
    below = base.mark_text(dy=14, fontSize=12).encode(text="run:N").transform_filter("!datum.above")
    return _svg((points + above + below).properties(width=640, height=300), "Test score against compute")


def label_efficiency(curve: LabelEfficiency) -> Markup:
    """Score by number of labels, a line and its 95% band for every head and plan."""
    rows: list[dict[str, Any]] = [
        {"run": run, "labels": one.labels, **_percent(one.score)} for run, some in curve.reached.items() for one in some
    ]
    shades = dict(pair for kind in KIND for pair in zip(_of_kind(curve, kind), itertools.cycle(SHADES[kind])))
    name = curve.metric.replace("_", " ")
    labels = alt.X("labels:Q", title="training images with a label (log)").scale(type="log", nice=False, padding=20)
    scale = alt.Scale(domain=list(shades), range=list(shades.values()))
    colour = alt.Color("run:N", scale=scale, legend=_legend())
    tried = sorted({row["labels"] for row in rows})
    base = alt.Chart(_data(rows)).encode(x=labels.axis(values=tried, format=","), color=colour)
    score = alt.Y("low:Q", title=f"test {name} (%), with 95% interval").scale(zero=False)
    band = base.mark_area(opacity=0.15).encode(y=score, y2="high:Q")
    line = base.mark_line(point=alt.OverlayMarkDef(filled=True, size=60)).encode(y="value:Q")
    return _svg((band + line).properties(width=640, height=300), f"Test {name} by number of labels")


def _of_kind(curve: LabelEfficiency, kind: str) -> list[str]:
    return [run for run, found in curve.kinds.items() if found == kind]


def _row(result: Result, estimate: Estimate) -> dict[str, Any]:
    return {"run": result.title, "kind": KIND[result.kind], **_percent(estimate)}


def _percent(estimate: Estimate) -> dict[str, float]:
    return {name: round(100 * value, 2) for name, value in vars(estimate).items()}


def _data(rows: list[dict[str, Any]]) -> alt.Data:
    return alt.Data(values=rows)  # type: ignore[no-untyped-call]  # Altair leaves this one untyped


def _colour() -> alt.Color:
    return alt.Color("kind:N", scale=COLOURS, legend=_legend())


def _legend() -> alt.Legend:
    return alt.Legend(title=None, orient="top", symbolOpacity=1)


def _forest(rows: list[dict[str, Any]], title: str, description: str, *under: alt.Chart) -> Markup:
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("run:N", title=None, sort=alt.EncodingSortField("value", order="descending")), color=_colour()
    )
    whiskers = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title).scale(zero=False), x2="high:Q")
    points = base.mark_point(filled=True, size=90, opacity=1).encode(x="value:Q")
    return _svg(alt.layer(*under, whiskers, points).properties(width=640, height=alt.Step(30)), description)


def _svg(chart: Any, description: str) -> Markup:  # noqa: ANN401  # any of Altair's classes
    """Draw an Altair chart; text and axes take the page's colour, so that light and dark both read well."""
    ink, padding = "currentColor", {"left": 24, "right": 12, "top": 6, "bottom": 14}
    chart = (
        chart.configure(background="transparent", font="system-ui, sans-serif", padding=padding)
        .configure_axis(
            labelColor=ink, titleColor=ink, domainColor="#888", tickColor="#888", gridColor="#8884",
            labelFontSize=12, titleFontSize=12, titleFontWeight="normal", labelLimit=260,
        )
        .configure_legend(labelColor=ink, labelFontSize=12)
        .configure_view(stroke=None)
    )  # fmt: skip
    svg = vl_convert.vegalite_to_svg(chart.to_dict())
    opening = f'<svg role="img" aria-label="{Markup.escape(description)}" '
    return Markup(svg.replace("<svg ", opening, 1))  # noqa: S704  # drawn by the library, which escapes all text
