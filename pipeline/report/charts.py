"""The report's charts: Altair specifications, drawn to SVG, so that the page needs no script to show them."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
from markupsafe import Markup

from pipeline.evaluation.comparison import Estimate
from pipeline.evaluation.efficiency import LabelEfficiency
from pipeline.report.drawing import GREY, INK, Axes, Chart, ChartSize, Records, dashed, data, draw, panels, percent
from pipeline.report.labels import LIMIT as LABEL_LIMIT
from pipeline.report.labels import PLACES, along, place_labels
from pipeline.verdict.chance import chance_level
from pipeline.verdict.schema import Result, Verdict

# Okabe & Ito's palette: colour-blind readers can distinguish it, on a light and on a dark background.
COLOURS = {"frozen head": "#0072b2", "fine-tuned": "#d55e00"}
SHADES = {"head": ("#0072b2", "#56b4e9", "#009e73", "#999999"), "plan": ("#d55e00", "#e69f00", "#cc79a7")}
"""For several heads and plans in one chart."""
KIND = {"head": "frozen head", "plan": "fine-tuned"}
BLUE = "#0072b2"
COST_HEIGHT, COST_MARGIN, COST_PADDING = 300, 10, 20
"""Of the chart of cost: its height, the part of its width that is left free, and the pixels that are free above."""
MOST_CLASSES = 20
"""More classes make a confusion matrix unreadable."""


def accuracy(verdict: Verdict) -> Markup:
    """Draw the test score of every run with its 95% interval, best first; a dashed line marks the chance level."""
    chance = chance_level(verdict.metric, verdict.test_images)
    rows = [_record(result, result.test[verdict.metric]) for result in verdict.results]
    title = f"test {_metric(verdict)} (%), with 95% interval"
    rules = dashed(100 * chance.score)
    return draw(lambda chart_size: _forest(rows, title, chart_size, rules), f"Test {_metric(verdict)} of every run")


def differences(verdict: Verdict) -> Markup:
    """Draw the paired difference of every run to the best frozen head; zero and the margin are marked."""
    best = verdict.of(verdict.best_head)
    others = [result for result in verdict.results if result is not best]
    rows = [_record(result, verdict.pair(result.run, best.run).difference) for result in others]
    rules = dashed(0.0, verdict.margin * 100)
    title = f"points of {_metric(verdict)} against {best.title}"
    return draw(
        lambda chart_size: _forest(rows, title, chart_size, rules), "Paired differences to the best frozen head"
    )


def cost(verdict: Verdict) -> Markup:
    """Draw score against compute, with the Pareto front: up and to the left is better."""
    rows = [
        {
            **_record(result, result.test[verdict.metric]),
            "cpu": max(result.cost.cpu_seconds, 1e-3),
            "front": result.on_front,
        }
        for result in verdict.results
    ]

    def build(chart_size: ChartSize) -> Chart:
        compute = alt.X("cpu:Q", title="CPU seconds from images to predictions (log)")
        score = alt.Y("value:Q", title=f"test {_metric(verdict)} (%)")
        placed, margin = _places(rows, chart_size), chart_size.width // COST_MARGIN
        base = alt.Chart(data([{**row, "place": place} for row, place in zip(rows, placed, strict=True)])).encode(
            x=compute.scale(type="log", nice=False, padding=margin).axis(tickCount=chart_size.width // 60),
            y=score.scale(zero=False, nice=False, padding=COST_PADDING),
        )
        front = base.transform_filter("datum.front").mark_line(interpolate="step-after", strokeDash=[5, 4], color=GREY)
        coloured = base.encode(color=_colour(rows, chart_size))
        points = coloured.mark_point(filled=True, size=90, opacity=1)
        texts = [
            base.mark_text(
                dx=place.dx, dy=place.dy, align=place.align, fontSize=12, limit=LABEL_LIMIT, color=INK
            ).encode(text="run:N").transform_filter(f"datum.place == {number}")
            for number, place in enumerate(PLACES) if number in placed
        ]  # fmt: skip
        return alt.layer(front, points, *texts).properties(width=chart_size.width, height=COST_HEIGHT)

    return draw(build, "Test score against compute, with the Pareto front")


def _places(rows: Records, chart_size: ChartSize) -> list[int]:
    """Return for every point of the chart of cost the number in PLACES of its name's place."""
    across = along([math.log(row["cpu"]) for row in rows], chart_size.width, chart_size.width // COST_MARGIN)
    down = along([-row["value"] for row in rows], COST_HEIGHT, COST_PADDING)
    return place_labels([row["run"] for row in rows], list(zip(across, down, strict=True)))


def label_efficiency(curve: LabelEfficiency) -> Markup:
    """Draw score by number of labels: a line with its 95% band for every head and plan."""
    rows: Records = [
        {"run": run, "labels": one.labels, **percent(one.score)} for run, some in curve.reached.items() for one in some
    ]
    name, tried = curve.metric.replace("_", " "), sorted({row["labels"] for row in rows})

    def build(chart_size: ChartSize) -> Chart:
        labels = alt.X("labels:Q", title="training images with a label (log)")
        labels = labels.scale(type="log", nice=False, padding=20).axis(values=tried, format=",")
        base = alt.Chart(data(rows)).encode(x=labels, color=_shades(curve.kinds, chart_size))
        score = alt.Y("low:Q", title=f"test {name} (%), with 95% interval").scale(zero=False)
        band = base.mark_area(opacity=0.15).encode(y=score, y2="high:Q")
        line = base.mark_line(point=alt.OverlayMarkDef(filled=True, size=60)).encode(y="value:Q")
        return (band + line).properties(width=chart_size.width, height=300)

    return draw(build, f"Test {name} by number of labels")


def confusion(results: Sequence[Result], classes: Sequence[str]) -> Markup:
    """Draw test images by true and decided class, one panel per run; the shade is the share of the true class."""
    rows: Records = [
        {"run": result.title, "true": cell["true"], "decided": cell["decided"], "images": cell["images"],
         "share": cell["share"].value}
        for result in results for cell in result.detail["confusion"]
    ]  # fmt: skip
    few = len(classes) <= 8
    side = max(140, 34 * len(classes)) if few else 22 * len(classes)

    def build(chart_size: ChartSize) -> Chart:
        scale, angle = alt.Scale(domain=list(classes)), -40 if len(classes) > 2 else 0
        x = alt.X("decided:N", title="decided", scale=scale)
        y = alt.Y("true:N", title="true", scale=scale)
        look = {"labelLimit": 110, "titlePadding": 20}
        shade = alt.Color("share:Q", scale=alt.Scale(scheme="blues", domain=[0, 1]), legend=None)
        ink = alt.when("datum.share > 0.55").then(alt.value("white")).otherwise(alt.value("#12161c"))

        def panel(some: Records, axes: Axes) -> Chart:
            base = alt.Chart(data(some)).encode(x=axes.x(x, labelAngle=angle, **look), y=axes.y(y, **look))
            cells = base.mark_rect().encode(color=shade)
            numbers = base.mark_text(fontSize=13 if few else 9).encode(text="images:Q", color=ink)
            return alt.layer(cells, numbers).properties(width=side, height=side)

        return panels(panel, rows, [result.title for result in results], max(1, chart_size.width // (side + 20)))

    return draw(build, "Confusion matrix of every run")


def calibration(results: Sequence[Result]) -> Markup:
    """Draw accuracy by confidence on the test images, one panel per run; the diagonal is perfect calibration."""
    rows: Records = [
        {"run": result.title, "confidence": 100 * part["confidence"], "images": part["images"],
         **percent(part["accuracy"])}
        for result in results for part in result.detail["calibration"]
    ]  # fmt: skip

    def build(chart_size: ChartSize) -> Chart:
        scale = alt.Scale(domain=[0, 100])
        most = max((row["images"] for row in rows), default=1)
        size = alt.Size("images:Q", legend=None, scale=alt.Scale(range=[12, 160], domain=[0, most]))

        def right(field: str, axes: Axes) -> alt.Y:
            return axes.y(alt.Y(f"{field}:Q", title="right (%)", scale=scale))

        def panel(some: Records, axes: Axes) -> Chart:
            x = axes.x(alt.X("confidence:Q", title="confidence (%)", scale=scale))
            ends, base = alt.Chart(data([{"confidence": 0}, {"confidence": 100}])), alt.Chart(data(some))
            diagonal = ends.mark_line(strokeDash=[4, 4], color=GREY).encode(x=x, y=right("confidence", axes))
            whiskers = base.mark_rule(color=BLUE, opacity=0.5).encode(x=x, y=right("low", axes), y2="high:Q")
            points = base.mark_point(filled=True, opacity=1, color=BLUE).encode(x=x, y=right("value", axes), size=size)
            return alt.layer(diagonal, whiskers, points).properties(width=190, height=150)

        return panels(panel, rows, [result.title for result in results], chart_size.columns)

    return draw(build, "Accuracy by confidence of every run")


def learning(epochs: Sequence[tuple[str, int, float, float]]) -> Markup:
    """Draw training loss and validation score by epoch, from rows of plan, epoch, loss and score."""
    names = ("plan", "epoch", "loss", "validation")
    rows: Records = [dict(zip(names, row, strict=True)) for row in epochs]
    plans = dict.fromkeys([row["plan"] for row in rows], "plan")

    def panel(field: str, title: str, chart_size: ChartSize) -> Chart:
        axis = alt.X("epoch:Q", title="epoch").axis(tickMinStep=1, format="d")
        height = alt.Y(f"{field}:Q", title=title).scale(zero=False)
        line = alt.Chart(data(rows)).mark_line(point=alt.OverlayMarkDef(filled=True, size=40))
        return line.encode(x=axis, y=height, color=_shades(plans, chart_size, "plan")).properties(width=260, height=190)

    def build(chart_size: ChartSize) -> Chart:
        both = [panel("loss", "training loss", chart_size), panel("validation", "validation score", chart_size)]
        return alt.hconcat(*both) if chart_size.columns > 1 else alt.vconcat(*both)

    return draw(build, "Training loss and validation score of every plan, by epoch")


def _metric(verdict: Verdict) -> str:
    return verdict.metric.replace("_", " ")


def _record(result: Result, estimate: Estimate) -> dict[str, Any]:
    return {"run": result.title, "kind": KIND[result.kind], **percent(estimate)}


def _colour(rows: Records, chart_size: ChartSize) -> alt.Color:
    """Return the colours of the kinds that the rows have."""
    kinds = [kind for kind in COLOURS if any(row["kind"] == kind for row in rows)]
    scale = alt.Scale(domain=kinds, range=[COLOURS[kind] for kind in kinds])
    return alt.Color("kind:N", scale=scale, legend=_legend(chart_size))


def _shades(kinds: Mapping[str, str], chart_size: ChartSize, field: str = "run") -> alt.Color:
    """Return one family of colours for the heads and another for the plans."""
    of_kind = {kind: [run for run, found in kinds.items() if found == kind] for kind in KIND}
    shades = dict(pair for kind in KIND for pair in zip(of_kind[kind], itertools.cycle(SHADES[kind]), strict=False))
    return alt.Color(
        f"{field}:N", scale=alt.Scale(domain=list(shades), range=list(shades.values())), legend=_legend(chart_size)
    )


def _legend(chart_size: ChartSize) -> alt.Legend:
    return alt.Legend(
        title=None, orient="top", symbolOpacity=1, labelLimit=chart_size.labels, columns=chart_size.entries
    )


def _forest(rows: Records, title: str, chart_size: ChartSize, *under: alt.Chart) -> Chart:
    ordered = alt.EncodingSortField("value", order="descending")
    run = alt.Y("run:N", title=None, sort=ordered, axis=alt.Axis(labelLimit=chart_size.labels))
    base = alt.Chart(data(rows)).encode(y=run, color=_colour(rows, chart_size))
    reach = alt.X("low:Q", title=title).scale(zero=False).axis(tickCount=chart_size.width // 60)
    whiskers = base.mark_rule(strokeWidth=2).encode(x=reach, x2="high:Q")
    points = base.mark_point(filled=True, size=90, opacity=1).encode(x="value:Q")
    return alt.layer(*under, whiskers, points).properties(width=chart_size.width, height=alt.Step(30))
