"""The charts of a report. Before is always one colour and one shape, after another, in whatever chart."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
from markupsafe import Markup

from api.dashboard import charts
from core.evidence import LatencySamples
from core.report import LayerCheck, Proportion, Report, SweepReport

WIDTH = 380  # pixels of a plot: on a phone it is as wide as the screen, on a desk two stand side by side
BEFORE, AFTER = "var(--chart-2)", "var(--chart-1)"
SIDES = ("before", "after")
BINS = 24
TAIL = 0.98  # latencies above this share of all are in the last bin

Row = tuple[str, ...]


@dataclass(frozen=True)
class Drawn:
    """A chart, with its numbers as a table. ``figure``: None where there is nothing to draw."""

    key: str
    title: str
    figure: Markup | None
    head: Row
    rows: Sequence[Row]


def accuracy(report: Report | SweepReport, names: Sequence[str]) -> Drawn:
    """Of the original and each model, by its parameters, with 95 % intervals; of several, the front as a line."""
    reports = report.reports if isinstance(report, SweepReport) else (report,)
    beaten = [row.dominated for row in report.table] if isinstance(report, SweepReport) else [False]
    first = reports[0].before
    # A single model is joined with the original; of several, those are joined that none beats.
    points = [_point("original", "before", first.parameters, first.accuracy.top1, front=len(reports) == 1)] + [
        _point(name, "after", each.after.parameters, each.after.accuracy.top1, front=not worse)
        for name, each, worse in zip(names, reports, beaten, strict=True)
    ]
    base = alt.Chart(alt.InlineData(values=points)).encode(
        x=alt.X("parameters:Q", title="Parameters", scale=alt.Scale(zero=False, padding=30, nice=False)).axis(
            format="~s", tickCount=4
        ),
        y=alt.Y("top1:Q", title="Top-1 accuracy", scale=alt.Scale(zero=False, padding=12)).axis(
            format=".1%", tickCount=5
        ),
    )
    layers: list[alt.Chart] = [
        base.transform_filter("datum.front")
        .mark_line(stroke="var(--muted)", strokeDash=[3, 3])
        .encode(order="parameters:Q"),
        base.mark_rule(strokeWidth=2).encode(y="low:Q", y2="high:Q", color=_side(legend=False)),
        base.mark_point(size=110, filled=True, opacity=1).encode(color=_side(legend=False), shape=_shape()),
        # The original is the rightmost: its name is below, where those of the others are not.
        _named(base, "before").mark_text(align="right", dx=-9, dy=15, fontSize=12, fill="var(--text)"),
        _named(base, "after").mark_text(align="left", dx=9, dy=-11, fontSize=12, fill="var(--text)"),
    ]
    drawn = charts.draw(
        alt.layer(*layers).properties(width=WIDTH, height=220),
        title="Accuracy against size",
        description="Top-1 accuracy on the evaluation images, with 95 % Wilson intervals."
        + (" The line joins the models that no other beats." if len(reports) > 1 else ""),
    )
    rows = [(str(point["name"]), f"{point['parameters']:,}", *_interval(point)) for point in points]
    return Drawn("accuracy", "Accuracy against size", drawn, ("Model", "Parameters", "Top-1", "95 % interval"), rows)


def _named(base: alt.Chart, side: str) -> alt.Chart:
    return base.transform_filter(f"datum.side == '{side}'").encode(text="name:N")


def _point(name: str, side: str, parameters: int, top1: Proportion, *, front: bool) -> dict[str, Any]:
    return {
        "name": name,
        "side": side,
        "parameters": parameters,
        "top1": top1.value,
        "low": top1.low,
        "high": top1.high,
        "front": front,
    }


def _interval(point: Mapping[str, Any]) -> tuple[str, str]:
    return f"{100 * point['top1']:.2f} %", f"{100 * point['low']:.2f} – {100 * point['high']:.2f} %"


def self_check(checks: Sequence[LayerCheck]) -> Drawn:
    """Predicted against measured, both in millinats; on the diagonal they are the same."""
    rows = [
        (
            check.path,
            "–" if check.predicted_loss is None else f"{1e3 * check.predicted_loss:.3g}",
            f"{1e3 * check.measured_kl:.3g}",
            f"{check.measured_kl / check.predicted_loss:.2f}" if check.predicted_loss else "–",
        )
        for check in checks
    ]
    told = [
        {
            "path": check.path,
            "kind": "attention" if "attn" in check.path else "other layers",
            "predicted": 1e3 * check.predicted_loss,
            "measured": 1e3 * check.measured_kl,
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
        x = alt.X("predicted:Q", title="Predicted, millinats an image", scale=scale, axis=axis)
        y = alt.Y("measured:Q", title="Measured, millinats an image", scale=scale, axis=axis)
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
    head = ("Layer", "Predicted, mnat", "Measured, mnat", "Measured / predicted")
    return Drawn("self-check", "Predicted and measured loss", figure, head, rows)


def _ticks(low: float, high: float) -> list[float]:
    """Of a logarithmic axis: powers of ten, and between few of them their doubles and fives."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(exponents) <= 4 else (1,)
    return [tick for exponent in exponents for step in steps if low <= (tick := step * 10.0**exponent) <= high]


def latency(samples: Sequence[LatencySamples]) -> Drawn:
    """Histograms by batch, of both sides over the same bins."""
    panels = []
    for each in samples:
        both = sorted((*each.before_ms, *each.after_ms))
        low, high = both[0], max(both[round(TAIL * (len(both) - 1))], both[0] * 1.01)
        step = (high - low) / BINS
        batch = f"batch {each.batch}: {each.measured:,} passes of each"
        bars = [
            {
                "start": low + place * step,
                "end": low + (place + 1) * step,
                "side": side,
                "share": count / len(times),
            }
            for side, times in (("before", each.before_ms), ("after", each.after_ms))
            for place, count in enumerate(_histogram(times, low, step))
        ]
        panels.append(
            alt.Chart(alt.InlineData(values=[bar for bar in bars if bar["share"]]))
            .mark_rect(opacity=0.7)
            .encode(
                x=alt.X("start:Q", title="Milliseconds", scale=alt.Scale(domain=[low, high], nice=False)).axis(
                    tickCount=5, format=".3~r"
                ),
                x2="end:Q",
                y=alt.Y("share:Q", title="Share of passes").axis(format="~%", tickCount=3),
                y2=alt.Y2Datum(0),
                color=_side(legend=True),
            )
            .properties(width=WIDTH, height=110, title=alt.TitleParams(batch, fontSize=12, anchor="start"))
        )
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
        alt.vconcat(*panels),
        title="Latency",
        description="Wall time of single forward passes on the worker, both models turn about. The last bar holds the "
        "slowest 2 % as well.",
    )
    head = ("Batch", "Side", "Least, ms", "5 %", "Median", "95 %", "Most", "Passes")
    return Drawn("latency", "Latency", figure, head, rows)


def _histogram(times: Sequence[float], low: float, step: float) -> list[int]:
    counts = [0] * BINS
    for each in times:
        counts[min(BINS - 1, int((each - low) / step))] += 1
    return counts


def _quantile(ascending: Sequence[float], share: float) -> float:
    return ascending[round(share * (len(ascending) - 1))]


def _side(*, legend: bool) -> alt.Color:
    shown = alt.Legend(title=None, orient="top", symbolType="square", symbolOpacity=1) if legend else None
    return alt.Color("side:N", scale=alt.Scale(domain=list(SIDES), range=[BEFORE, AFTER]), legend=shown)


def _shape() -> alt.Shape:
    return alt.Shape("side:N", scale=alt.Scale(domain=list(SIDES), range=["diamond", "circle"]), legend=None)
