"""Where the names of a chart's points go: beside them, where nothing else is. One without room has none."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import altair as alt

LETTER, LINE = 6.9, 14.0  # pixels of a name at 12 pixels, in the widest of the usual fonts
RADIUS = 6.0  # of a point

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Named:
    """A point, in pixels from the plot's upper left corner; ``top`` and ``bottom`` of the bar through it."""

    name: str
    x: float
    y: float
    top: float
    bottom: float


@dataclass(frozen=True)
class Spot:
    """Where a name is set: ``dx`` pixels right of its point and ``dy`` below, ``align`` as Vega has it."""

    align: str
    dx: float
    dy: float

    def box(self, point: Named) -> Box:
        """What the name of ``point`` covers there. No font is asked, so it is rather too wide."""
        width = LETTER * len(point.name)
        left = point.x + self.dx - {"left": 0.0, "center": width / 2, "right": width}[self.align]
        return left, point.y + self.dy - LINE / 2, left + width, point.y + self.dy + LINE / 2


SPOTS = (
    Spot("left", 9, -10),
    Spot("right", -9, -10),
    Spot("left", 9, 12),
    Spot("right", -9, 12),
)


def spots(points: Sequence[Named], *, width: float, line: Sequence[tuple[float, float]] = ()) -> list[int | None]:
    """Of each point, which of ``SPOTS`` its name has: those that come first choose first.

    Names stand on no other name or point and, where that can be had, on no bar, nor on the ``line``, whose corners
    these are.
    """
    taken: list[Box] = [(each.x - RADIUS, each.y - RADIUS, each.x + RADIUS, each.y + RADIUS) for each in points]
    crossed = [(each.x - 2, each.top, each.x + 2, each.bottom) for each in points] + _along(line)
    found: list[int | None] = []
    for point in points:
        boxes = [(place, spot.box(point)) for place, spot in enumerate(SPOTS)]
        free = [
            (place, box)
            for place, box in boxes
            if box[0] >= 0 and box[2] <= width and not any(_meet(box, each) for each in taken)
        ]
        clear = [(place, box) for place, box in free if not any(_meet(box, each) for each in crossed)]
        place, box = next(iter([*clear, *free]), (None, None))
        found.append(place)
        taken += [] if box is None else [box]
    return found


def _along(line: Sequence[tuple[float, float]]) -> list[Box]:
    """Small boxes, no farther apart than names are high."""
    found: list[Box] = []
    for (x, y), (to_x, to_y) in pairwise(line):
        steps = max(1, math.ceil(math.hypot(to_x - x, to_y - y) / LINE * 2))
        for step in range(steps + 1):
            at_x, at_y = x + (to_x - x) * step / steps, y + (to_y - y) * step / steps
            found.append((at_x - 1, at_y - 1, at_x + 1, at_y + 1))
    return found


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def name_layers(base: alt.Chart, fill: str) -> list[alt.Chart]:
    """The names, of data with ``label`` and ``spot``."""
    return [
        base.transform_filter(f"datum.spot === {place}")
        .mark_text(align=spot.align, dx=spot.dx, dy=spot.dy, fontSize=12, fill=fill)  # type: ignore[arg-type]
        .encode(text="label:N")
        for place, spot in enumerate(SPOTS)
    ]


@dataclass(frozen=True)
class Axis:
    """A linear scale from ``low`` to ``high`` over so many pixels, or a logarithmic one."""

    low: float
    high: float
    pixels: float
    log: bool = False

    @classmethod
    def around(cls, values: Sequence[float], pixels: float, margin: float, *, log: bool = False) -> "Axis":
        """With ``margin`` pixels beyond the outermost of ``values``."""
        ends = [math.log10(each) if log else each for each in (min(values), max(values))]
        span = ends[1] - ends[0] or (1.0 if log else abs(ends[1]) or 1.0)
        beyond = span * margin / (pixels - 2 * margin)
        low, high = ends[0] - beyond, ends[1] + beyond
        return cls(10**low, 10**high, pixels, log) if log else cls(low, high, pixels)

    def at(self, value: float) -> float:
        """Pixels from the low end, which of an upright axis is the lower one."""
        low, high, here = (math.log10(each) if self.log else each for each in (self.low, self.high, value))
        return (here - low) / (high - low) * self.pixels

    @property
    def scale(self) -> alt.Scale:
        """As Vega draws it, without rounding the ends, which would move all that ``at`` says."""
        kind = {"type": "log"} if self.log else {"zero": False}
        return alt.Scale(domain=[self.low, self.high], nice=False, **kind)


Row = dict[str, Any]


def with_spots(
    rows: Sequence[Row], x: Axis, y: Axis, across: str, upwards: str, *, joined: str, in_steps: bool = False
) -> list[Row]:
    """``rows`` with their names' spots. ``across`` and ``upwards``: what of a row goes where; ``joined``: whether a
    line goes through it, from left to right."""
    points = [
        Named(
            str(row["label"]),
            x.at(row[across]),
            y.pixels - y.at(row[upwards]),
            y.pixels - y.at(row["high" if "high" in row else upwards]),
            y.pixels - y.at(row["low" if "low" in row else upwards]),
        )
        for row in rows
    ]
    corners = sorted((point.x, point.y) for point, row in zip(points, rows, strict=True) if row[joined])
    if in_steps:
        corners = [corner for one, to in pairwise(corners) for corner in (one, (to[0], one[1]), to)]
    placed = spots(points, width=x.pixels, line=corners)
    return [row | {"spot": spot} for row, spot in zip(rows, placed, strict=True)]
