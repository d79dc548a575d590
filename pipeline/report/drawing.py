"""Drawing of charts to SVG: the look that all have in common, the sizes, and small panels side by side."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import altair as alt
import vl_convert
from markupsafe import Markup

from pipeline.evaluation.comparison import Estimate

GREY, INK = "#888", "currentColor"
LOOKS = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "padding": {"left": 24, "right": 12, "top": 6, "bottom": 14},
    "axis": {
        "labelColor": INK, "titleColor": INK, "domainColor": GREY, "tickColor": GREY, "gridColor": "#8884",
        "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelLimit": 260,
    },
    "legend": {"labelColor": INK, "labelFontSize": 12},
    "title": {"color": INK, "fontSize": 12, "fontWeight": "normal", "limit": 200},
    "view": {"stroke": None},
}  # fmt: skip
"""Vega-Lite's `config`: text and axes have the colour of the page's text, which suits a light and a dark page."""

Records = list[dict[str, Any]]
Chart = Any
"""Any of Altair's classes."""


class ChartSize(NamedTuple):
    """The size of a chart: every chart is drawn once for a screen and once for a phone."""

    width: int
    """Of the drawing without its labels, in pixels."""
    labels: int
    """The longest label, in pixels; longer ones are cut off."""
    columns: int
    """Small charts in a row."""
    entries: int
    """Entries of a legend in a row."""


class Axes(NamedTuple):
    """Which axes of a panel have labels and a title."""

    first: bool
    """The vertical one: the panel is the first of its row."""
    last: bool
    """The horizontal one: the panel is the last of its column."""

    def x(self, channel: alt.X, **look: Any) -> alt.X:  # noqa: ANN401  # what alt.Axis takes
        """Return a channel with the axis as it is drawn here."""
        return channel.axis(**look) if self.last else channel.axis(labels=False, title=None)

    def y(self, channel: alt.Y, **look: Any) -> alt.Y:  # noqa: ANN401  # what alt.Axis takes
        """Return a channel with the axis as it is drawn here."""
        return channel.axis(**look) if self.first else channel.axis(labels=False, title=None)


CHART_SIZES = {"wide": ChartSize(640, 260, 3, 4), "narrow": ChartSize(250, 90, 1, 2)}


def percent(estimate: Estimate) -> dict[str, float]:
    """Return a value and its interval in percent."""
    return {name: round(100 * value, 2) for name, value in vars(estimate).items()}


def data(rows: Records) -> alt.Data:
    """Return rows as Altair takes them."""
    return alt.Data(values=rows)  # type: ignore[no-untyped-call]  # Altair leaves this one untyped


def dashed(*at: float) -> Chart:
    """Return dashed vertical lines."""
    rows: Records = [{"at": one} for one in at]
    return alt.Chart(data(rows)).mark_rule(strokeDash=[4, 4], color=GREY).encode(x="at:Q")


def panels(build: Callable[[Records, Axes], Chart], rows: Records, titles: Sequence[str], columns: int) -> Chart:
    """Arrange one panel per run in columns, in the order of their titles.

    Only the first panel of a row has the labels of the vertical axis, and only the last of a column those of the
    horizontal one. A facet would draw the latter under an empty cell of the last row too.
    """
    made = []
    for place, title in enumerate(titles):
        axes = Axes(first=place % columns == 0, last=place + columns >= len(titles))
        panel = build([row for row in rows if row["run"] == title], axes)
        made.append(panel.properties(title=alt.Title(title)))
    return alt.concat(*made, columns=columns)


def draw(build: Callable[[ChartSize], Chart], description: str) -> Markup:
    """Draw a chart in every size; the style sheet shows the one that fits.

    Altair's builders share state: in several threads, titles and fields end up in the wrong chart (vega/altair#3589).
    So they run in the caller's thread, and only the drawing runs in parallel.
    """
    specs = [{**build(chart_size).to_dict(validate=False), "config": LOOKS} for chart_size in CHART_SIZES.values()]
    with ThreadPoolExecutor() as pool:  # drawing releases the interpreter lock
        pictures = list(pool.map(vl_convert.vegalite_to_svg, specs))
    opening = f'<svg role="img" aria-label="{Markup.escape(description)}" '
    boxes = [
        # The library escapes all text in its drawings.
        Markup('<div class="{}">{}</div>').format(name, Markup(picture.replace("<svg ", opening, 1)))  # noqa: S704
        for name, picture in zip(CHART_SIZES, pictures, strict=True)
    ]
    return Markup("\n").join(boxes)
