"""The charts of a report that go layer by layer: what each kept, and what it was cut from."""

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import altair as alt

from api.dashboard import charts
from api.dashboard.chart_labels import Axis
from api.dashboard.report_charts import AFTER, BEFORE, WIDTH, Drawn, Row
from core.evidence import Spectrum, SpectrumPoint
from vitpress.plan import Attention, Dense, FeedForward, Layer, LowRank, LowRankSparse, Plan

PARTS = {
    "qkv": "The map to queries, keys and values (qkv)",
    "proj": "The map behind attention (proj)",
    "fc1": "The first map of feed-forward blocks (fc1)",
    "fc2": "The second map of feed-forward blocks (fc2)",
    "linear": "Other linear maps",
    "units": "Hidden units of feed-forward blocks",
    "queries_keys": "Dimensions of queries and keys, of all heads together",
    "values": "Dimensions of values, of all heads together",
    "heads": "Heads",
}
UNITS = {
    "nats": "predicted loss of one, nats an image",
    "weight_energy": "½σ², energy of the weights",
    "output_variance": "½σ², variance of the outputs",
}
LEAST = 1e-7  # of the largest component: what is below is noise, and would make all else flat
COLUMNS = 3
MARGIN, GAP, HEAD, PANEL = 38, 12, 18, 64  # pixels: left of the panels, between them, over one, and its height
LINE = HEAD + PANEL + 10
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_BLOCK = re.compile(r"(.*\d)\.(?:attn|mlp|self_attn|attention)\b.*")


def kept(plan: Plan) -> Drawn:
    """Heads, dimensions, widths and ranks that are left, as a map of blocks by what they have."""
    cells = [cell for layer in plan.layers for cell in _sizes(layer)]
    blocks = list(dict.fromkeys(_block(layer.path) for layer in plan.layers))
    columns = [name for name in _ORDER if any(cell["what"] == name for cell in cells)]
    rows: list[Row] = [
        (
            layer.path,
            ", ".join(f"{cell['what']} {cell['left']} of {cell['whole']}" for cell in _sizes(layer)) or "as it was",
            f"{layer.parameters_before:,}",
            f"{layer.parameters_after:,}",
            f"{100 * layer.parameters_after / layer.parameters_before:.1f} %",
        )
        for layer in plan.layers
    ]
    figure = None
    if cells:
        base = alt.Chart(alt.InlineData(values=cells)).encode(
            x=alt.X("what:N", title=None, sort=columns, scale=alt.Scale(domain=columns)).axis(
                orient="top", domain=False, labelAngle=0 if len(columns) <= 5 else -40, labelLimit=80
            ),
            y=alt.Y("block:N", title=None, sort=blocks, scale=alt.Scale(domain=blocks)).axis(
                grid=False, labelLimit=120
            ),
        )
        figure = charts.draw(
            alt.layer(
                base.mark_rect(stroke="var(--surface)", strokeWidth=2, cornerRadius=4, fill=AFTER).encode(
                    fillOpacity=alt.FillOpacity(
                        "fraction:Q", scale=alt.Scale(domain=[0, 1], range=[0.06, 0.6]), legend=None
                    ),
                    description="text:N",
                ),
                base.mark_text(fontSize=11, fill="var(--text)").encode(text="left:Q"),
            ).properties(width=WIDTH - 20, height={"step": 26}),
            title="What each block kept",
            description="Numbers are what is left, the shade is the share of what was there. Where there is no field, "
            "that size is as it was.",
        )
    head = ("Layer", "Kept", "Parameters before", "After", "Left")
    return Drawn("kept", "Rank and width kept", figure, head, rows)


_ORDER = ("heads", "q, k", "v", "qkv rank", "proj rank", "inputs", "width", "fc1 rank", "fc2 rank", "rank", "neurons")


def _sizes(layer: Layer) -> list[dict[str, Any]]:
    """What of the layer is smaller than it was. A rank is one of as many as the map could have."""
    found: list[tuple[str, int | None, int]] = []
    match layer:
        case Attention():
            read = layer.heads * (2 * layer.qk_dim + layer.v_dim)
            found = [
                ("heads", layer.heads, layer.heads_before),
                ("q, k", layer.qk_dim, layer.head_dim_before),
                ("v", layer.v_dim, layer.head_dim_before),
                ("qkv rank", layer.qkv_rank, min(layer.in_features, read)),
                ("proj rank", layer.proj_rank, min(layer.heads * layer.v_dim, layer.out_features)),
                ("inputs", layer.inputs, layer.in_features),
            ]
        case FeedForward():
            found = [
                ("width", layer.width, layer.width_before),
                ("fc1 rank", layer.fc1_rank, min(layer.in_features, layer.width)),
                ("fc2 rank", layer.fc2_rank, min(layer.width, layer.out_features)),
                ("inputs", layer.inputs, layer.in_features),
            ]
        case LowRank():
            found = [("rank", layer.rank, min(layer.in_features, layer.out_features))]
        case LowRankSparse():
            found = [
                ("rank", layer.rank, min(layer.in_features, layer.out_features)),
                ("neurons", layer.neurons, layer.out_features),
            ]
        case Dense():
            pass
    return [
        {
            "block": _block(layer.path),
            "what": what,
            "left": left,
            "whole": whole,
            "fraction": left / whole,
            "text": f"{layer.path}: {what} {left} of {whole}",
        }
        for what, left, whole in found
        if left is not None and left != whole
    ]


def _block(path: str) -> str:
    """Attention and feed-forward of one block go into one line."""
    found = _BLOCK.fullmatch(path)
    return found[1] if found else path


def spectra(found: Sequence[Spectrum]) -> list[Drawn]:
    """One chart for each kind of part, with a panel for each layer that has it: first those that gave up most."""
    by_part = {part: [each for each in found if each.part == part] for part in PARTS}
    there = [part for part in PARTS if by_part[part]]
    there.sort(key=lambda part: sum(each.kept for each in by_part[part]) / sum(each.count for each in by_part[part]))
    return [_spectra(part, PARTS[part], by_part[part]) for part in there]


def _spectra(part: str, title: str, found: Sequence[Spectrum]) -> Drawn:
    largest = max((point.loss for each in found for point in each.points), default=0.0)
    figure = None
    if largest > 0:
        figure = charts.draw(
            _panels([(each.path if part == "linear" else _block(each.path), each) for each in found], largest),
            title=title,
            description=f"From the most important component on; upwards: {UNITS[found[0].unit]}, on a log scale.",
        )
    rows = [
        (
            each.path,
            f"{each.kept:,}",
            f"{each.count:,}",
            f"{each.points[0].loss:.3g}" if each.points else "–",
            _at(each),
        )
        for each in found
    ]
    head = ("Layer", "Kept", "Of", "Largest", "At the cut")
    return Drawn(f"spectra-{part}", title, figure, head, rows)


def _panels(found: Sequence[tuple[str, Spectrum]], largest: float) -> alt.LayerChart | alt.FacetChart:
    """A panel a layer, all on the same scales, laid out here in pixels: facets of so many took seconds."""
    columns = min(COLUMNS, len(found))
    width = (WIDTH + 20 - MARGIN - GAP * (columns - 1)) / columns
    lines = -(-len(found) // columns)
    count = max(each.points[-1].component for _, each in found if each.points)
    bottom = min(point.loss for _, each in found for point in each.points if point.loss > 0)
    across = Axis(1, max(2, count), width)
    upwards = Axis(max(bottom, LEAST * largest) / 1.01, largest, PANEL, log=True)
    areas, grid, words = [], [], []
    for place, (name, spectrum) in enumerate(found):
        line, column = divmod(place, columns)
        left, floor = MARGIN + column * (width + GAP), line * LINE + HEAD + PANEL
        words.append({"x": left + width / 2, "y": floor - PANEL - 9, "text": name, "align": "center"})
        for exponent in _decades(upwards):
            at = floor - upwards.at(10.0**exponent)
            grid.append({"x": left, "x2": left + width, "y": at})
            if column == 0:
                words.append({"x": left - 5, "y": at, "text": f"10{str(exponent).translate(RAISED)}", "align": "right"})
        if place + columns >= len(found):
            words += [
                {"x": left + across.at(tick), "y": floor + 9, "text": f"{tick:,}", "align": "center"}
                for tick in _steps(count)
            ]
        areas += [
            {
                "x": left + across.at(point.component),
                "y": floor - upwards.at(max(point.loss, upwards.low)),
                "y2": floor,
                "fate": fate,
                "detail": f"{place} {fate}",
            }
            for fate, points in _fates(spectrum)
            for point in _thinned(points, across)
        ]
    size = {"width": WIDTH + 20, "height": lines * LINE + 16}
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, size["width"]], nice=False))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[size["height"], 0], nice=False))
    fate = alt.Color(
        "fate:N",
        scale=alt.Scale(domain=["kept", "given up"], range=[AFTER, BEFORE]),
        legend=alt.Legend(title=None, orient="top", symbolType="square", symbolOpacity=1),
    )
    aligned: tuple[tuple[Literal["center", "right"], str], ...] = (("center", "var(--text)"), ("right", "var(--muted)"))
    texts = alt.Chart(alt.InlineData(values=words)).encode(x=x, y=y, text="text:N")
    return alt.layer(
        alt.Chart(alt.InlineData(values=grid)).mark_rule(stroke="var(--line)").encode(x=x, x2="x2:Q", y=y),
        alt.Chart(alt.InlineData(values=areas))
        .mark_area(opacity=0.85, line={"strokeWidth": 1.5})
        .encode(x=x, y=y, y2="y2:Q", color=fate, detail="detail:N"),
        *(
            texts.transform_filter(f"datum.align === '{align}'").mark_text(
                align=align, fontSize=11, fill=fill, limit=width + GAP
            )
            for align, fill in aligned
        ),
    ).properties(**size)


def _decades(axis: Axis) -> list[int]:
    low, high = math.ceil(math.log10(axis.low)), math.floor(math.log10(axis.high))
    return list(range(high, low - 1, -max(1, round((high - low) / 3))))


def _steps(count: int) -> list[int]:
    """Round numbers up to ``count``, two to five of them."""
    third = max(1.0, count / 3)
    power = 10 ** math.floor(math.log10(third))
    step = int(power * max(each for each in (1, 2, 5) if each * power <= third))
    return list(range(step, count + 1, step))


def _fates(spectrum: Spectrum) -> list[tuple[str, Sequence[SpectrumPoint]]]:
    """Both areas have the point at the cut, so that no gap is between them."""
    kept = [point for point in spectrum.points if point.component <= spectrum.kept]
    rest = spectrum.points[len(kept) :]
    return [("kept", kept), ("given up", [*kept[-1:], *rest] if rest else [])]


def _thinned(points: Sequence[SpectrumPoint], across: Axis) -> list[SpectrumPoint]:
    """No more than one a pixel, but for the ends."""
    by_pixel = {round(across.at(point.component)): point for point in points}
    return sorted({*points[:1], *points[-1:], *by_pixel.values()})


def _at(spectrum: Spectrum) -> str:
    """The last component that is kept, of those that are known."""
    kept = [point.loss for point in spectrum.points if point.component <= spectrum.kept]
    return f"{kept[-1]:.3g}" if kept else "–"
