"""The report's charts: Altair specifications, drawn to SVG, so that the page needs no script to show them."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import altair as alt
import vl_convert
from markupsafe import Markup

from pipeline.evaluation.comparison import Estimate
from pipeline.evaluation.efficiency import LabelEfficiency
from pipeline.verdict.schema import Result, Verdict

# Okabe & Ito's palette: colour-blind readers can distinguish it, on a light and on a dark background.
COLOURS = alt.Scale(domain=["frozen head", "fine-tuned"], range=["#0072b2", "#d55e00"])
SHADES = {"head": ("#0072b2", "#56b4e9", "#009e73", "#999999"), "plan": ("#d55e00", "#e69f00", "#cc79a7")}
"""For several heads and plans in one chart."""
KIND = {"head": "frozen head", "plan": "fine-tuned"}
BLUE, GREY, INK = "#0072b2", "#888", "currentColor"
LOOKS = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "padding": {"left": 24, "right": 12, "top": 6, "bottom": 14},
    "axis": {
        "labelColor": INK, "titleColor": INK, "domainColor": GREY, "tickColor": GREY, "gridColor": "#8884",
        "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 260,
    },
    "legend": {"labelColor": INK, "labelFontSize": 12},
    "header": {"labelColor": INK, "labelFontSize": 12, "labelLimit": 200},
    "view": {"stroke": None},
}  # fmt: skip
"""Vega-Lite's `config`: text and axes have the colour of the page's text, which suits a light and a dark page."""
MOST_CLASSES = 20
"""More classes make a confusion matrix unreadable."""

Records = list[dict[str, Any]]
Chart = Any
"""Any of Altair's classes."""


class Layout(NamedTuple):
    """The size of a chart: every chart is drawn once for a screen and once for a phone."""

    width: int
    """Of the drawing without its labels, in pixels."""
    labels: int
    """The longest label, in pixels; longer ones are cut off."""
    columns: int
    """Small charts in a row."""
    entries: int
    """Entries of a legend in a row."""


LAYOUTS = {"wide": Layout(640, 260, 3, 4), "narrow": Layout(250, 90, 1, 2)}


def accuracy(verdict: Verdict) -> Markup:
    """Draw the test score of every run with its 95% interval, best first."""
    rows = [_record(result, result.test[verdict.metric]) for result in verdict.results]
    title = f"test {_metric(verdict)} (%), with 95% interval"
    return _draw(lambda layout: _forest(rows, title, layout), f"Test {_metric(verdict)} of every run")


def differences(verdict: Verdict) -> Markup:
    """Draw the paired difference of every run to the best frozen head; zero and the margin are marked."""
    best = verdict.of(verdict.best_head)
    others = [result for result in verdict.results if result is not best]
    rows = [_record(result, verdict.pair(result.run, best.run).difference) for result in others]
    lines = alt.Chart(_data([{"at": 0.0}, {"at": verdict.margin * 100}]))
    rules = lines.mark_rule(strokeDash=[4, 4], color=GREY).encode(x="at:Q")
    title = f"points of {_metric(verdict)} against {best.title}"
    return _draw(lambda layout: _forest(rows, title, layout, rules), "Paired differences to the best frozen head")


def cost(verdict: Verdict) -> Markup:
    """Draw score against compute, with the Pareto front: up and to the left is better."""
    ordered = sorted(verdict.results, key=lambda result: result.cost.cpu_seconds)
    rows = [
        {
            **_record(result, result.test[verdict.metric]),
            "cpu": max(result.cost.cpu_seconds, 1e-3),
            "above": place % 2 == 0,
            "front": result.on_front,
        }
        for place, result in enumerate(ordered)
    ]

    def draw(layout: Layout) -> Chart:
        compute = alt.X("cpu:Q", title="CPU seconds from images to predictions (log)")
        score = alt.Y("value:Q", title=f"test {_metric(verdict)} (%)")
        base = alt.Chart(_data(rows)).encode(
            x=compute.scale(type="log", nice=False, padding=layout.width // 10).axis(tickCount=layout.width // 60),
            y=score.scale(zero=False, padding=20),
        )
        front = base.transform_filter("datum.front").mark_line(interpolate="step-after", strokeDash=[5, 4], color=GREY)
        coloured = base.encode(color=_colour(layout))
        points = coloured.mark_point(filled=True, size=90, opacity=1)
        # Names alternate above and below their points, so that few overlap.
        texts = [
            base.mark_text(dy=dy, fontSize=12, limit=200, color=INK).encode(text="run:N").transform_filter(where)
            for dy, where in ((-12, "datum.above"), (14, "!datum.above"))
        ]
        return alt.layer(front, points, *texts).properties(width=layout.width, height=300)

    return _draw(draw, "Test score against compute, with the Pareto front")


def label_efficiency(curve: LabelEfficiency) -> Markup:
    """Draw score by number of labels: a line with its 95% band for every head and plan."""
    rows: Records = [
        {"run": run, "labels": one.labels, **_percent(one.score)} for run, some in curve.reached.items() for one in some
    ]
    name, tried = curve.metric.replace("_", " "), sorted({row["labels"] for row in rows})

    def draw(layout: Layout) -> Chart:
        labels = alt.X("labels:Q", title="training images with a label (log)")
        labels = labels.scale(type="log", nice=False, padding=20).axis(values=tried, format=",")
        base = alt.Chart(_data(rows)).encode(x=labels, color=_shades(curve.kinds, layout))
        score = alt.Y("low:Q", title=f"test {name} (%), with 95% interval").scale(zero=False)
        band = base.mark_area(opacity=0.15).encode(y=score, y2="high:Q")
        line = base.mark_line(point=alt.OverlayMarkDef(filled=True, size=60)).encode(y="value:Q")
        return (band + line).properties(width=layout.width, height=300)

    return _draw(draw, f"Test {name} by number of labels")


def confusion(results: Sequence[Result], classes: Sequence[str]) -> Markup:
    """Draw test images by true and decided class, one panel per run; the shade is the share of the true class."""
    rows: Records = [
        {"run": result.title, "true": cell["true"], "decided": cell["decided"], "images": cell["images"],
         "share": cell["share"].value}
        for result in results for cell in result.detail["confusion"]
    ]  # fmt: skip
    few = len(classes) <= 8
    side = max(140, 34 * len(classes)) if few else 22 * len(classes)

    def draw(layout: Layout) -> Chart:
        scale, angle = alt.Scale(domain=list(classes)), -40 if len(classes) > 2 else 0
        base = alt.Chart().encode(
            x=alt.X("decided:N", title="decided", scale=scale, axis=alt.Axis(labelLimit=110, labelAngle=angle)),
            y=alt.Y("true:N", title="true", scale=scale, axis=alt.Axis(labelLimit=110)),
        )
        shade = alt.Color("share:Q", scale=alt.Scale(scheme="blues", domain=[0, 1]), legend=None)
        ink = alt.when("datum.share > 0.55").then(alt.value("white")).otherwise(alt.value("#12161c"))
        numbers = base.mark_text(fontSize=13 if few else 9).encode(text="images:Q", color=ink)
        cells = base.mark_rect().encode(color=shade)
        panel = alt.layer(cells, numbers).properties(width=side, height=side)
        return _panels(panel, rows, results, max(1, layout.width // (side + 20)))

    return _draw(draw, "Confusion matrix of every run")


def calibration(results: Sequence[Result]) -> Markup:
    """Draw accuracy by confidence on the test images, one panel per run; the diagonal is perfect calibration."""
    rows: Records = [
        {"run": result.title, "confidence": 100 * part["confidence"], "images": part["images"],
         **_percent(part["accuracy"])}
        for result in results for part in result.detail["calibration"]
    ]  # fmt: skip

    def draw(layout: Layout) -> Chart:
        base = alt.Chart().encode(x=alt.X("confidence:Q", title="confidence (%)").scale(domain=[0, 100]))
        right = alt.Y("value:Q", title="right (%)").scale(domain=[0, 100])
        diagonal = base.mark_line(strokeDash=[4, 4], color=GREY).encode(y=alt.Y("confidence:Q", title="right (%)"))
        whiskers = base.mark_rule(color=BLUE, opacity=0.5).encode(y=alt.Y("low:Q", title="right (%)"), y2="high:Q")
        size = alt.Size("images:Q", legend=None, scale=alt.Scale(range=[12, 160]))
        points = base.mark_point(filled=True, opacity=1, color=BLUE).encode(y=right, size=size)
        panel = alt.layer(diagonal, whiskers, points).properties(width=190, height=150)
        return _panels(panel, rows, results, layout.columns)

    return _draw(draw, "Accuracy by confidence of every run")


def learning(epochs: Sequence[tuple[str, int, float, float]]) -> Markup:
    """Draw training loss and validation score by epoch, from rows of plan, epoch, loss and score."""
    names = ("plan", "epoch", "loss", "validation")
    rows: Records = [dict(zip(names, row, strict=True)) for row in epochs]
    plans = dict.fromkeys([row["plan"] for row in rows], "plan")

    def panel(field: str, title: str, layout: Layout) -> Chart:
        axis = alt.X("epoch:Q", title="epoch").axis(tickMinStep=1, format="d")
        height = alt.Y(f"{field}:Q", title=title).scale(zero=False)
        line = alt.Chart(_data(rows)).mark_line(point=alt.OverlayMarkDef(filled=True, size=40))
        return line.encode(x=axis, y=height, color=_shades(plans, layout, "plan")).properties(width=260, height=190)

    def draw(layout: Layout) -> Chart:
        both = [panel("loss", "training loss", layout), panel("validation", "validation score", layout)]
        return alt.hconcat(*both) if layout.columns > 1 else alt.vconcat(*both)

    return _draw(draw, "Training loss and validation score of every plan, by epoch")


def _metric(verdict: Verdict) -> str:
    return verdict.metric.replace("_", " ")


def _record(result: Result, estimate: Estimate) -> dict[str, Any]:
    return {"run": result.title, "kind": KIND[result.kind], **_percent(estimate)}


def _percent(estimate: Estimate) -> dict[str, float]:
    return {name: round(100 * value, 2) for name, value in vars(estimate).items()}


def _data(rows: Records) -> alt.Data:
    return alt.Data(values=rows)  # type: ignore[no-untyped-call]  # Altair leaves this one untyped


def _colour(layout: Layout) -> alt.Color:
    return alt.Color("kind:N", scale=COLOURS, legend=_legend(layout))


def _shades(kinds: Mapping[str, str], layout: Layout, field: str = "run") -> alt.Color:
    """Return one family of colours for the heads and another for the plans."""
    of_kind = {kind: [run for run, found in kinds.items() if found == kind] for kind in KIND}
    shades = dict(pair for kind in KIND for pair in zip(of_kind[kind], itertools.cycle(SHADES[kind]), strict=False))
    return alt.Color(
        f"{field}:N", scale=alt.Scale(domain=list(shades), range=list(shades.values())), legend=_legend(layout)
    )


def _legend(layout: Layout) -> alt.Legend:
    return alt.Legend(title=None, orient="top", symbolOpacity=1, labelLimit=layout.labels, columns=layout.entries)


def _panels(chart: Chart, rows: Records, results: Sequence[Result], columns: int) -> Chart:
    """Arrange one chart per run in columns, in the order of the results."""
    facet = alt.Facet("run:N", title=None, sort=[result.title for result in results])
    return chart.properties(data=_data(rows)).facet(facet=facet, columns=columns)


def _forest(rows: Records, title: str, layout: Layout, *under: alt.Chart) -> Chart:
    ordered = alt.EncodingSortField("value", order="descending")
    run = alt.Y("run:N", title=None, sort=ordered, axis=alt.Axis(labelLimit=layout.labels))
    base = alt.Chart(_data(rows)).encode(y=run, color=_colour(layout))
    reach = alt.X("low:Q", title=title).scale(zero=False).axis(tickCount=layout.width // 60)
    whiskers = base.mark_rule(strokeWidth=2).encode(x=reach, x2="high:Q")
    points = base.mark_point(filled=True, size=90, opacity=1).encode(x="value:Q")
    return alt.layer(*under, whiskers, points).properties(width=layout.width, height=alt.Step(30))


def _draw(draw: Callable[[Layout], Chart], description: str) -> Markup:
    """Draw a chart in every layout; the style sheet shows the one that fits.

    Altair's builders share state: in several threads, titles and fields end up in the wrong chart (vega/altair#3589).
    So they run in the caller's thread, and only the drawing runs in parallel.
    """
    specs = [{**draw(layout).to_dict(validate=False), "config": LOOKS} for layout in LAYOUTS.values()]
    with ThreadPoolExecutor() as pool:  # drawing releases the interpreter lock
        pictures = list(pool.map(vl_convert.vegalite_to_svg, specs))
    opening = f'<svg role="img" aria-label="{Markup.escape(description)}" '
    boxes = [
        # The library escapes all text in its drawings.
        Markup('<div class="{}">{}</div>').format(name, Markup(picture.replace("<svg ", opening, 1)))  # noqa: S704
        for name, picture in zip(LAYOUTS, pictures, strict=True)
    ]
    return Markup("\n").join(boxes)
