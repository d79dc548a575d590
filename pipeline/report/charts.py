"""The report's charts: Altair specifications, drawn to SVG here so that they need no script to be seen."""

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

# Okabe & Ito's palette: told apart by colour-blind readers, on light and on dark ground.
COLOURS = alt.Scale(domain=["frozen head", "fine-tuned"], range=["#0072b2", "#d55e00"])
SHADES = {"head": ("#0072b2", "#56b4e9", "#009e73", "#999999"), "plan": ("#d55e00", "#e69f00", "#cc79a7")}
"""Of several heads and plans in one chart."""
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
"""Vega-Lite's `config`: text and axes take the page's colour, so that light and dark both read well."""
MOST_CLASSES = 20
"""In a confusion matrix that can still be read."""

Rows = list[dict[str, Any]]
Chart = Any
"""Any of Altair's classes."""


class Shape(NamedTuple):
    """How much room there is: every chart is drawn once for a screen and once for a phone."""

    width: int
    """Of the drawing, in pixels, without its labels."""
    labels: int
    """The longest label, in pixels; the rest of a longer one is cut off."""
    columns: int
    """Of small charts beside each other."""
    entries: int
    """Of a legend beside each other."""


SHAPES = {"wide": Shape(640, 260, 3, 4), "narrow": Shape(250, 90, 1, 2)}


def accuracy(verdict: Verdict) -> Markup:
    """Every run's test score with its 95% interval, best first."""
    rows = [_row(result, result.test[verdict.metric]) for result in verdict.results]
    title = f"test {_metric(verdict)} (%), with 95% interval"
    return _drawn(lambda shape: _forest(rows, title, shape), f"Test {_metric(verdict)} of every run")


def differences(verdict: Verdict) -> Markup:
    """Every run's paired difference to the best frozen head, with zero and the margin marked."""
    best = verdict.of(verdict.best_head)
    others = [result for result in verdict.results if result is not best]
    rows = [_row(result, verdict.pair(result.run, best.run).difference) for result in others]
    lines = alt.Chart(_data([{"at": 0.0}, {"at": verdict.margin * 100}]))
    rules = lines.mark_rule(strokeDash=[4, 4], color=GREY).encode(x="at:Q")
    title = f"points of {_metric(verdict)} against {best.title}"
    return _drawn(lambda shape: _forest(rows, title, shape, rules), "Paired differences to the best frozen head")


def cost(verdict: Verdict) -> Markup:
    """Score against compute, with the Pareto front: up and to the left is better."""
    ordered = sorted(verdict.results, key=lambda result: result.cost.cpu_seconds)
    rows = [
        {
            **_row(result, result.test[verdict.metric]),
            "cpu": max(result.cost.cpu_seconds, 1e-3),
            "above": place % 2 == 0,
            "front": result.on_front,
        }
        for place, result in enumerate(ordered)
    ]

    def draw(shape: Shape) -> Chart:
        compute = alt.X("cpu:Q", title="CPU seconds from images to predictions (log)")
        score = alt.Y("value:Q", title=f"test {_metric(verdict)} (%)")
        base = alt.Chart(_data(rows)).encode(
            x=compute.scale(type="log", nice=False, padding=shape.width // 10).axis(tickCount=shape.width // 60),
            y=score.scale(zero=False, padding=20),
        )
        front = base.transform_filter("datum.front").mark_line(interpolate="step-after", strokeDash=[5, 4], color=GREY)
        coloured = base.encode(color=_colour(shape))
        points = coloured.mark_point(filled=True, size=90, opacity=1)
        # Neighbours have their names on different sides of the point, so that few overlap.
        texts = [
            base.mark_text(dy=dy, fontSize=12, limit=200, color=INK).encode(text="run:N").transform_filter(where)
            for dy, where in ((-12, "datum.above"), (14, "!datum.above"))
        ]
        return alt.layer(front, points, *texts).properties(width=shape.width, height=300)

    return _drawn(draw, "Test score against compute, with the Pareto front")


def label_efficiency(curve: LabelEfficiency) -> Markup:
    """Score by number of labels, a line and its 95% band for every head and plan."""
    rows: Rows = [
        {"run": run, "labels": one.labels, **_percent(one.score)} for run, some in curve.reached.items() for one in some
    ]
    name, tried = curve.metric.replace("_", " "), sorted({row["labels"] for row in rows})

    def draw(shape: Shape) -> Chart:
        labels = alt.X("labels:Q", title="training images with a label (log)")
        labels = labels.scale(type="log", nice=False, padding=20).axis(values=tried, format=",")
        base = alt.Chart(_data(rows)).encode(x=labels, color=_shades(curve.kinds, shape))
        score = alt.Y("low:Q", title=f"test {name} (%), with 95% interval").scale(zero=False)
        band = base.mark_area(opacity=0.15).encode(y=score, y2="high:Q")
        line = base.mark_line(point=alt.OverlayMarkDef(filled=True, size=60)).encode(y="value:Q")
        return (band + line).properties(width=shape.width, height=300)

    return _drawn(draw, f"Test {name} by number of labels")


def confusion(results: Sequence[Result], classes: Sequence[str]) -> Markup:
    """Test images by true and decided class, a panel for every run; the shade is the share of the true class."""
    rows: Rows = [
        {"run": result.title, "true": cell["true"], "decided": cell["decided"], "images": cell["images"],
         "share": cell["share"].value}
        for result in results for cell in result.detail["confusion"]
    ]  # fmt: skip
    few = len(classes) <= 8
    side = max(140, 34 * len(classes)) if few else 22 * len(classes)

    def draw(shape: Shape) -> Chart:
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
        return _panels(panel, rows, results, max(1, shape.width // (side + 20)))

    return _drawn(draw, "Confusion matrix of every run")


def calibration(results: Sequence[Result]) -> Markup:
    """Accuracy by confidence on the test images, a panel for every run; the diagonal is perfect calibration."""
    rows: Rows = [
        {"run": result.title, "confidence": 100 * part["confidence"], "images": part["images"],
         **_percent(part["accuracy"])}
        for result in results for part in result.detail["calibration"]
    ]  # fmt: skip

    def draw(shape: Shape) -> Chart:
        base = alt.Chart().encode(x=alt.X("confidence:Q", title="confidence (%)").scale(domain=[0, 100]))
        right = alt.Y("value:Q", title="right (%)").scale(domain=[0, 100])
        diagonal = base.mark_line(strokeDash=[4, 4], color=GREY).encode(y=alt.Y("confidence:Q", title="right (%)"))
        whiskers = base.mark_rule(color=BLUE, opacity=0.5).encode(y=alt.Y("low:Q", title="right (%)"), y2="high:Q")
        size = alt.Size("images:Q", legend=None, scale=alt.Scale(range=[12, 160]))
        points = base.mark_point(filled=True, opacity=1, color=BLUE).encode(y=right, size=size)
        panel = alt.layer(diagonal, whiskers, points).properties(width=190, height=150)
        return _panels(panel, rows, results, shape.columns)

    return _drawn(draw, "Accuracy by confidence of every run")


def learning(epochs: Sequence[tuple[str, int, float, float]]) -> Markup:
    """Training loss and validation score by epoch: rows of plan, epoch, loss and score."""
    names = ("plan", "epoch", "loss", "validation")
    rows: Rows = [dict(zip(names, row, strict=True)) for row in epochs]
    plans = dict.fromkeys([row["plan"] for row in rows], "plan")

    def panel(field: str, title: str, shape: Shape) -> Chart:
        axis = alt.X("epoch:Q", title="epoch").axis(tickMinStep=1, format="d")
        height = alt.Y(f"{field}:Q", title=title).scale(zero=False)
        line = alt.Chart(_data(rows)).mark_line(point=alt.OverlayMarkDef(filled=True, size=40))
        return line.encode(x=axis, y=height, color=_shades(plans, shape, "plan")).properties(width=260, height=190)

    def draw(shape: Shape) -> Chart:
        both = [panel("loss", "training loss", shape), panel("validation", "validation score", shape)]
        return alt.hconcat(*both) if shape.columns > 1 else alt.vconcat(*both)

    return _drawn(draw, "Training loss and validation score of every plan, by epoch")


def _metric(verdict: Verdict) -> str:
    return verdict.metric.replace("_", " ")


def _row(result: Result, estimate: Estimate) -> dict[str, Any]:
    return {"run": result.title, "kind": KIND[result.kind], **_percent(estimate)}


def _percent(estimate: Estimate) -> dict[str, float]:
    return {name: round(100 * value, 2) for name, value in vars(estimate).items()}


def _data(rows: Rows) -> alt.Data:
    return alt.Data(values=rows)  # type: ignore[no-untyped-call]  # Altair leaves this one untyped


def _colour(shape: Shape) -> alt.Color:
    return alt.Color("kind:N", scale=COLOURS, legend=_legend(shape))


def _shades(kinds: Mapping[str, str], shape: Shape, field: str = "run") -> alt.Color:
    """Give the heads one family of colours and the plans another."""
    of_kind = {kind: [run for run, found in kinds.items() if found == kind] for kind in KIND}
    shades = dict(pair for kind in KIND for pair in zip(of_kind[kind], itertools.cycle(SHADES[kind]), strict=False))
    return alt.Color(
        f"{field}:N", scale=alt.Scale(domain=list(shades), range=list(shades.values())), legend=_legend(shape)
    )


def _legend(shape: Shape) -> alt.Legend:
    return alt.Legend(title=None, orient="top", symbolOpacity=1, labelLimit=shape.labels, columns=shape.entries)


def _panels(chart: Chart, rows: Rows, results: Sequence[Result], columns: int) -> Chart:
    """Put a chart for every run beside and under each other, in the order of the results."""
    facet = alt.Facet("run:N", title=None, sort=[result.title for result in results])
    return chart.properties(data=_data(rows)).facet(facet=facet, columns=columns)


def _forest(rows: Rows, title: str, shape: Shape, *under: alt.Chart) -> Chart:
    ordered = alt.EncodingSortField("value", order="descending")
    run = alt.Y("run:N", title=None, sort=ordered, axis=alt.Axis(labelLimit=shape.labels))
    base = alt.Chart(_data(rows)).encode(y=run, color=_colour(shape))
    reach = alt.X("low:Q", title=title).scale(zero=False).axis(tickCount=shape.width // 60)
    whiskers = base.mark_rule(strokeWidth=2).encode(x=reach, x2="high:Q")
    points = base.mark_point(filled=True, size=90, opacity=1).encode(x="value:Q")
    return alt.layer(*under, whiskers, points).properties(width=shape.width, height=alt.Step(30))


def _drawn(draw: Callable[[Shape], Chart], description: str) -> Markup:
    """Draw a chart in every shape; the style sheet shows the one that fits.

    Altair's builders share state: in several threads, titles and fields wander from one chart to another
    (vega/altair#3589). So they run in the caller's, and only the drawing runs side by side.
    """
    specs = [{**draw(shape).to_dict(validate=False), "config": LOOKS} for shape in SHAPES.values()]
    with ThreadPoolExecutor() as pool:  # drawing releases the interpreter's lock
        pictures = list(pool.map(vl_convert.vegalite_to_svg, specs))
    opening = f'<svg role="img" aria-label="{Markup.escape(description)}" '
    boxes = [
        # The library draws it, and escapes all text.
        Markup('<div class="{}">{}</div>').format(name, Markup(picture.replace("<svg ", opening, 1)))  # noqa: S704
        for name, picture in zip(SHAPES, pictures, strict=True)
    ]
    return Markup("\n").join(boxes)
