"""The charts of a report. Before is always one colour and one shape, after another, in whatever chart."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
from markupsafe import Markup

from api.dashboard import charts
from api.dashboard.chart_labels import Axis, name_layers, with_spots
from core.evidence import LatencySamples
from core.report import LayerCheck, Proportion, Report, SweepReport

WIDTH = 300  # pixels of a plot: on a phone it is as wide as the screen, on a desk two stand side by side
HEIGHT = 210
BEFORE, AFTER = "var(--chart-2)", "var(--chart-1)"
SIDES = ("before", "after")
MOST_BINS = 24
TAIL = 0.98  # latencies above this share of all are in the last bin

_NUMBER = re.compile(r"–|[+−]?\d[\d,.]*(?:e[+-]\d+)?(?: – \d[\d.]*)?(?:\s%)?")
# What a nat is divided into, in full and for the head of a column.
NATS = ((1.0, "nats", "nat"), (1e3, "millinats", "mnat"), (1e6, "micronats", "µnat"), (1e9, "nanonats", "nnat"))

Row = tuple[str, ...]


@dataclass(frozen=True)
class Drawn:
    """A chart, with its numbers as a table. ``figure``: None where there is nothing to draw."""

    key: str
    title: str
    figure: Markup | None
    head: Row
    rows: Sequence[Row]

    @property
    def heads(self) -> Row:
        """As the frame of a table takes them: those of numbers are marked, but for the first column."""
        cells = list(zip(*self.rows, strict=True))
        return tuple(
            f"#{name}" if place and cells and all(_NUMBER.fullmatch(cell) for cell in cells[place]) else name
            for place, name in enumerate(self.head)
        )


def accuracy(report: Report | SweepReport, names: Sequence[str]) -> Drawn:
    """Of the original and each model, by its parameters, with 95 % intervals; of several, the front as a line."""
    reports = report.reports if isinstance(report, SweepReport) else (report,)
    beaten = [row.dominated for row in report.table] if isinstance(report, SweepReport) else [False]
    first = reports[0].before
    # A single model is joined with the original; of several, those are joined that none beats.
    points = [
        *(
            _point(name, "after", each.after.parameters, each.after.accuracy.top1, front=not worse)
            for name, each, worse in zip(names, reports, beaten, strict=True)
        ),
        _point("original", "before", first.parameters, first.accuracy.top1, front=len(reports) == 1),
    ]
    upwards = Axis.around([point[end] for point in points for end in ("low", "high")], HEIGHT, 10)
    drawn = charts.draw(
        _by_size(points, "top1", upwards, title="Top-1 accuracy", format_=".1%"),
        title="Accuracy against size",
        description="Top-1 accuracy on the evaluation images, with 95 % Wilson intervals."
        + (" The line joins the models that no other beats." if len(reports) > 1 else ""),
    )
    rows = [
        (str(point["label"]), f"{point['parameters']:,}", *_interval(point)) for point in (points[-1], *points[:-1])
    ]
    return Drawn("accuracy", "Accuracy against size", drawn, ("Model", "Parameters", "Top-1", "95 % interval"), rows)


def _point(name: str, side: str, parameters: int, top1: Proportion, *, front: bool) -> dict[str, Any]:
    return {
        "label": name,
        "side": side,
        "parameters": parameters,
        "top1": top1.value,
        "low": top1.low,
        "high": top1.high,
        "front": front,
    }


def divergence(report: SweepReport, names: Sequence[str]) -> Drawn:
    """Of each model's answers from the original's, by its parameters: it tells more than accuracies do."""
    found = list(zip(names, report.table, strict=True))
    points = [
        {
            "label": name,
            "side": "after",
            "parameters": row.parameters,
            "kl": 1e3 * row.kl_nats,
            "front": True,
        }
        for name, row in found
        if row.kl_nats > 0
    ]
    figure = None
    if points:
        upwards = Axis.around([float(str(point["kl"])) for point in points], HEIGHT, 14, log=True)
        figure = charts.draw(
            _by_size(points, "kl", upwards, title="KL, millinats an image", format_=".2~r"),
            title="Divergence against size",
            description="How far the probabilities are from the original's: KL(before ‖ after), on a log scale. It "
            "tells models apart whose accuracy is the same.",
        )
    rows = [(name, f"{row.parameters:,}", f"{1e3 * row.kl_nats:.3g}") for name, row in found]
    return Drawn("divergence", "Divergence against size", figure, ("Model", "Parameters", "KL, mnat"), rows)


def _by_size(
    points: Sequence[dict[str, Any]], field: str, upwards: Axis, *, title: str, format_: str
) -> alt.LayerChart | alt.FacetChart:
    """Points with their names, by ``parameters``; those on the ``front`` are joined, and intervals are bars."""
    across = Axis.around([point["parameters"] for point in points], WIDTH, 26)
    values = with_spots(points, across, upwards, "parameters", field, joined="front")
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X("parameters:Q", title="Parameters", scale=across.scale).axis(format="~s", tickCount=4),
        y=alt.Y(f"{field}:Q", title=title, scale=upwards.scale).axis(
            format=format_,
            grid=True,
            **({"values": _ticks(upwards.low, upwards.high)} if upwards.log else {"tickCount": 5}),
        ),
    )
    return alt.layer(
        base.transform_filter("datum.front")
        .mark_line(stroke="var(--muted)", strokeDash=[3, 3])
        .encode(order="parameters:Q"),
        *(
            [base.mark_rule(strokeWidth=2).encode(y="low:Q", y2="high:Q", color=_side(legend=False))]
            if "low" in points[0]
            else []
        ),
        base.mark_point(size=110, filled=True, opacity=1).encode(color=_side(legend=False), shape=_shape()),
        *name_layers(base, "var(--text)"),
    ).properties(width=WIDTH, height=HEIGHT)


def _interval(point: Mapping[str, Any]) -> tuple[str, str]:
    return f"{100 * point['top1']:.2f} %", f"{100 * point['low']:.2f} – {100 * point['high']:.2f} %"


def self_check(checks: Sequence[LayerCheck]) -> Drawn:
    """Predicted against measured, both in the same part of a nat; on the diagonal they are the same."""
    largest = max((max(check.measured_kl, check.predicted_loss or 0) for check in checks), default=0)
    factor, unit, short = next((each for each in NATS if largest * each[0] >= 1), NATS[-1])
    rows = [
        (
            check.path,
            "–" if check.predicted_loss is None else f"{factor * check.predicted_loss:.3g}",
            f"{factor * check.measured_kl:.3g}",
            f"{check.measured_kl / check.predicted_loss:.2f}" if check.predicted_loss else "–",
        )
        for check in checks
    ]
    told = [
        {
            "path": check.path,
            "kind": "attention" if "attn" in check.path else "other layers",
            "predicted": factor * check.predicted_loss,
            "measured": factor * check.measured_kl,
        }
        for check in checks
        if check.predicted_loss is not None and check.predicted_loss > 0 and check.measured_kl > 0
    ]
    figure = None
    if told:
        values = [float(str(each[axis])) for each in told for axis in ("predicted", "measured")]
        ends = [min(values) / 1.5, max(values) * 1.5]
        scale = alt.Scale(type="log", domain=ends, nice=False)
        axis = alt.Axis(format=".2~r", values=_ticks(*ends), grid=True)
        line = alt.Chart(alt.InlineData(values=[{"predicted": each, "measured": each} for each in ends]))
        base = alt.Chart(alt.InlineData(values=told))
        kinds = list(dict.fromkeys(str(each["kind"]) for each in told))
        x = alt.X("predicted:Q", title=f"Predicted, {unit} an image", scale=scale, axis=axis)
        y = alt.Y("measured:Q", title=f"Measured, {unit} an image", scale=scale, axis=axis)
        legend = alt.Legend(title=None, orient="top") if len(kinds) > 1 else None
        colours = alt.Scale(domain=kinds, range=["var(--chart-1)", "var(--chart-2)"][: len(kinds)])
        shapes = alt.Scale(domain=kinds, range=["circle", "square"][: len(kinds)])
        figure = charts.draw(
            alt.layer(
                line.mark_line(stroke="var(--muted)", strokeDash=[3, 3]).encode(x=x, y=y),
                base.mark_point(size=90, filled=True, opacity=0.9).encode(
                    x=x,
                    y=y,
                    color=alt.Color("kind:N", scale=colours, legend=legend),
                    shape=alt.Shape("kind:N", scale=shapes, legend=legend),
                    description="path:N",
                ),
            ).properties(width=WIDTH, height=WIDTH * 0.7),
            title="Predicted and measured loss of each layer",
            description="A point a layer. Above the line it costs more than was predicted, below it less.",
        )
    head = ("Layer", f"Predicted, {short}", f"Measured, {short}", "Ratio")
    return Drawn("self-check", "Predicted and measured loss", figure, head, rows)


def _ticks(low: float, high: float) -> list[float]:
    """Of a logarithmic axis: powers of ten, and between few of them their doubles and fives."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 50 else (1, 3) if high / low < 3000 else (1,)
    return [tick for exponent in exponents for step in steps if low <= (tick := step * 10.0**exponent) <= high]


def latency(samples: Sequence[LatencySamples]) -> Drawn:
    """Histograms by batch: before upwards, after downwards, over the same bins."""
    rows = [
        (
            str(each.batch),
            side,
            *(f"{_quantile(times, share):.3g}" for share in (0.0, 0.05, 0.5, 0.95, 1.0)),
            f"{each.measured:,}",
        )
        for each in samples
        for side, times in (("before", each.before_ms), ("after", each.after_ms))
    ]
    figure = charts.draw(
        alt.vconcat(*(_mirrored(each) for each in samples), spacing=14),
        title="Latency",
        description="Wall time of single forward passes on the worker, both models turn about: before upwards, after "
        "downwards, with the medians. The last bar holds the slowest 2 % as well.",
    )
    head = ("Batch", "Side", "Least, ms", "5 %", "Median", "95 %", "Most", "Passes")
    return Drawn("latency", "Latency", figure, head, rows)


def _mirrored(samples: LatencySamples) -> alt.LayerChart | alt.FacetChart:
    sides = (("before", samples.before_ms, 1), ("after", samples.after_ms, -1))
    both = sorted((*samples.before_ms, *samples.after_ms))
    low, high = both[0], max(both[round(TAIL * (len(both) - 1))], both[0] * 1.01)
    bins = min(MOST_BINS, round(3 * len(samples.before_ms) ** (1 / 3)))  # of few passes few, or all are gaps
    step = (high - low) / bins
    bars = [
        {
            "start": low + place * step,
            "end": low + (place + 1) * step,
            "side": side,
            "share": sign * count / len(times),
            "told": f"{side}: {count} of {len(times)}",
        }
        for side, times, sign in sides
        for place, count in enumerate(_histogram(times, low, step, bins))
        if count
    ]
    end = 1.45 * max(abs(float(str(bar["share"]))) for bar in bars)
    medians = [
        {
            "at": min(_quantile(times, 0.5), high),
            "side": side,
            "end": sign * end,
            "text": f"median {_quantile(times, 0.5):.3g} ms",
        }
        for side, times, sign in sides
    ]
    x = alt.X("start:Q", title="Milliseconds", scale=alt.Scale(domain=[low, high], nice=False))
    y = alt.Y("share:Q", title="Share of passes", scale=alt.Scale(domain=[-end, end], nice=False))
    middle = (low + high) / 2
    marks = alt.Chart(alt.InlineData(values=medians)).encode(x="at:Q", y="end:Q")
    return alt.layer(
        alt.Chart(alt.InlineData(values=bars))
        .mark_rect(stroke="var(--surface)", strokeWidth=1)
        .encode(
            x=x.axis(tickCount=5, format=".3~r"),
            x2="end:Q",
            y=y.axis(labelExpr="format(abs(datum.value), '~%')", tickCount=5),
            y2=alt.Y2Datum(0),
            color=_side(legend=True),
            description="told:N",
        ),
        marks.mark_rule(stroke="var(--text)", strokeDash=[2, 2]).encode(y2=alt.Y2Datum(0)),
        *(
            marks.transform_filter(f"datum.side === '{side}' && datum.at {sign} {middle}")
            .mark_text(align=align, dx=dx, dy=dy, fontSize=11, fill="var(--text)")  # type: ignore[arg-type]
            .encode(text="text:N")
            for side, dy in (("before", 7), ("after", -7))
            for sign, align, dx in (("<=", "left", 5), (">", "right", -5))
        ),
    ).properties(
        width=WIDTH,
        height=115,
        title=alt.TitleParams(
            f"batch {samples.batch}: {samples.measured:,} {'pass' if samples.measured == 1 else 'passes'} of each",
            fontSize=12,
            anchor="start",
        ),
    )


def _histogram(times: Sequence[float], low: float, step: float, bins: int) -> list[int]:
    counts = [0] * bins
    for each in times:
        counts[min(bins - 1, int((each - low) / step))] += 1
    return counts


def _quantile(ascending: Sequence[float], share: float) -> float:
    return ascending[round(share * (len(ascending) - 1))]


def _side(*, legend: bool) -> alt.Color:
    shown = alt.Legend(title=None, orient="top", symbolType="square", symbolOpacity=1) if legend else None
    return alt.Color("side:N", scale=alt.Scale(domain=list(SIDES), range=[BEFORE, AFTER]), legend=shown)


def _shape() -> alt.Shape:
    return alt.Shape("side:N", scale=alt.Scale(domain=list(SIDES), range=["diamond", "circle"]), legend=None)
