"""Where the names beside the points of a chart go, so that they hide neither each other nor a point."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

LIMIT = 200
"""The longest name, in pixels; longer ones are cut off."""
LETTER, HEIGHT, RADIUS = 6.5, 14.0, 5.0
"""The mean width of a letter of 12 pixels, the height of a line, and the radius of a point."""


Align = Literal["left", "center", "right"]


class Offset(NamedTuple):
    """A place for a name, in pixels from its point; y grows downwards."""

    dx: int
    dy: int
    align: Align


_SIDES: Sequence[tuple[int, Align]] = ((10, "left"), (-10, "right"))
PLACES = (
    Offset(0, -12, "center"), Offset(0, 14, "center"), Offset(10, 0, "left"), Offset(-10, 0, "right"),
    *(Offset(dx, dy, align) for dy in (-14, 16, -28, 30, -42, 44, -56, 58) for dx, align in _SIDES),
)  # fmt: skip
"""In the order in which they are tried."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def along(values: Sequence[float], length: float, margin: float) -> list[float]:
    """Return where a linear scale puts the values on an axis of this length that keeps a margin at both ends."""
    low, high = min(values), max(values)
    if low == high:
        return [length / 2] * len(values)
    return [margin + (value - low) / (high - low) * (length - 2 * margin) for value in values]


def place_labels(names: Sequence[str], at: Sequence[tuple[float, float]]) -> list[int]:
    """Return for each point the number in PLACES of the first place that is free; where none is, the first."""
    taken = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in at]
    chosen = []
    for name, point in zip(names, at, strict=True):
        boxes = [_box(name, point, place) for place in PLACES]
        number = next((number for number, box in enumerate(boxes) if not _overlaps(box, taken)), 0)
        taken.append(boxes[number])
        chosen.append(number)
    return chosen


def _box(name: str, point: tuple[float, float], place: Offset) -> Box:
    width = min(LETTER * len(name), LIMIT)
    left = point[0] + place.dx - {"left": 0.0, "center": width / 2, "right": width}[place.align]
    middle = point[1] + place.dy
    return left, middle - HEIGHT / 2, left + width, middle + HEIGHT / 2


def _overlaps(box: Box, taken: Sequence[Box]) -> bool:
    left, top, right, bottom = box
    return any(left < other[2] and other[0] < right and top < other[3] and other[1] < bottom for other in taken)
