"""Models by what they cost and how much they err, with the front of those that none beats."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from api.dashboard.chart_labels import Axis, name_layers, with_spots

MOST_COLOURS = 6  # the style sheet's --chart-1 to --chart-6

SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")  # a job's, greyed or not


@dataclass(frozen=True)
class Cost:
    """An axis: ``title`` for people, ``format`` in d3's language."""

    title: str
    format: str


@dataclass(frozen=True)
class Point:
    """``low`` and ``high``: the error's 95 % interval. ``group``: those in one can be compared with each other.

    ``beaten``: None where nobody can tell. ``href``: None for an original, which no job made.
    """

    label: str
    series: str
    group: int
    cost: float
    error: float
    low: float
    high: float
    beaten: bool | None
    href: str | None

    @property
    def is_original(self) -> bool:
        """It is drawn for comparison, and is never on the front."""
        return self.href is None


def pareto(points: Sequence[Point], cost: Cost, *, width: int, height: int) -> alt.LayerChart | alt.FacetChart:
    """Errors upwards, costs to the right: the best are below and to the left."""
    series = list(dict.fromkeys(point.series for point in points if not point.is_original))
    across = Axis.around([point.cost for point in points], width, 26)
    upwards = Axis.around([end for point in points for end in (point.low, point.high)], height, 16)
    in_turn = sorted(points, key=lambda point: bool(point.beaten))  # names of the front have the best places
    rows = [_row(point) for point in in_turn]
    rows = with_spots(rows, across, upwards, "cost", "error", joined="on_front", in_steps=True)
    x = alt.X("cost:Q", title=cost.title, scale=across.scale).axis(format=cost.format, tickCount=max(3, width // 160))
    y = alt.Y("error:Q", title="Error (1 − top-1)", scale=upwards.scale).axis(format=".3~p", tickCount=6)
    colours = [f"var(--chart-{1 + index % MOST_COLOURS})" for index in range(len(series))]
    shapes = [SHAPES[index % len(SHAPES)] for index in range(len(series))]
    legend = alt.Legend(
        orient="top", symbolOpacity=1, columns=max(1, width // 160), columnPadding=22, offset=14, symbolSize=90
    )
    colour = alt.Color("series:N", title=None, scale=alt.Scale(domain=series, range=colours), legend=legend)
    shape = alt.Shape("series:N", title=None, scale=alt.Scale(domain=series, range=shapes), legend=legend)
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=x, y=y)
    models = base.transform_filter("!datum.is_original")
    kept, beaten = models.transform_filter("!datum.beaten"), models.transform_filter("datum.beaten")
    return alt.layer(
        base.transform_filter("datum.on_front")
        .mark_line(interpolate="step-after", stroke="var(--text)", strokeWidth=1.5, strokeDash=[2, 3], opacity=0.6)
        .encode(detail="group:N", order="cost:Q"),
        beaten.mark_rule(stroke="var(--muted)", strokeWidth=1.5, opacity=0.5).encode(y="low:Q", y2="high:Q"),
        kept.mark_rule(strokeWidth=2, opacity=0.7).encode(y="low:Q", y2="high:Q", color=colour),
        base.transform_filter("datum.is_original")
        .mark_point(shape="diamond", size=110, stroke="var(--text)", strokeWidth=1.75, fill="var(--surface)", opacity=1)
        .encode(description="name:N"),
        beaten.mark_point(size=150, fill="var(--muted)", stroke="var(--surface)", opacity=0.75).encode(
            href="href:N", description="name:N", shape=shape
        ),
        kept.mark_point(size=150, filled=True, stroke="var(--surface)", strokeWidth=1, opacity=1).encode(
            href="href:N", description="name:N", color=colour, shape=shape
        ),
        *name_layers(base, "var(--muted)"),
    ).properties(width=width, height=height)


def _row(point: Point) -> dict[str, Any]:
    standing = {True: "beaten by another", False: "on the front", None: ""}[point.beaten]
    parts = (point.series, point.label, f"error {100 * point.error:.2f} %", standing)
    return {
        "label": point.label,
        "series": point.series,
        "group": point.group,
        "cost": point.cost,
        "error": point.error,
        "low": point.low,
        "high": point.high,
        "beaten": bool(point.beaten),
        "on_front": point.beaten is False and not point.is_original,
        "is_original": point.is_original,
        "href": point.href,
        "name": ", ".join(part for part in dict.fromkeys(parts) if part),
    }
