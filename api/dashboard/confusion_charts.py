"""The charts of a report that go class by class: which answers became more, and which fewer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from api.dashboard import charts
from api.dashboard.report_charts import WIDTH, Drawn, Row
from core.evidence import ConfusionCell

MOST_CLASSES = 30  # on a heat map
MOST_PAIRS = 10


def confusion(cells: Sequence[ConfusionCell], names: Sequence[str]) -> list[Drawn]:
    """What changed in the answers by class: the pairs that changed most and, of few classes, all on a map."""
    changed = [cell for cell in cells if cell.before != cell.after]
    wrong = sorted(
        (cell for cell in changed if cell.label != cell.answer), key=lambda cell: -abs(cell.after - cell.before)
    )
    drawn = [_pairs(wrong, names)]
    if len(names) <= MOST_CLASSES:
        drawn.insert(0, _map(changed, names))
    return drawn


def _map(changed: Sequence[ConfusionCell], names: Sequence[str]) -> Drawn:
    head = ("Label", "Answer", "Before", "After", "Change")
    rows = [_row(cell, names) for cell in changed]
    if not changed:
        return Drawn("confusion", "Answers by class", None, head, rows)
    values = [_cell(cell, names) for cell in changed]
    size = max(18, min(44, (WIDTH - 40) // max(1, len(names))))
    axis = alt.Axis(domain=False, grid=False, labelLimit=90)
    order = list(names)
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X("answer:N", title="Answer", sort=order, scale=alt.Scale(domain=order)).axis(
            domain=False, labelAngle=-50, labelLimit=90
        ),
        y=alt.Y("label:N", title="Label", sort=order, scale=alt.Scale(domain=order), axis=axis),
    )
    most = max(abs(cell.after - cell.before) for cell in changed)
    cells: list[alt.Chart] = [
        base.mark_rect(stroke="var(--surface)", strokeWidth=1, cornerRadius=3).encode(
            fill=alt.Fill(
                "kind:N",
                scale=alt.Scale(domain=["better", "worse"], range=["var(--chart-1)", "var(--chart-2)"]),
                legend=alt.Legend(title=None, orient="top", symbolType="square"),
            ),
            fillOpacity=alt.FillOpacity(
                "size:Q", scale=alt.Scale(type="sqrt", domain=[0, most], range=[0.12, 0.55]), legend=None
            ),
            description="text:N",
        )
    ]
    if len(names) <= 15:
        cells.append(base.mark_text(fontSize=11, fill="var(--text)").encode(text="delta:N"))
    figure = charts.draw(
        alt.layer(*cells).properties(width=size * len(names), height=size * len(names)),
        title="How the answers changed, by class",
        description="After less before, in images. On the diagonal more is better, elsewhere fewer is.",
    )
    return Drawn("confusion", "Answers by class", figure, head, rows)


def _pairs(wrong: Sequence[ConfusionCell], names: Sequence[str]) -> Drawn:
    values = [
        _cell(cell, names) | {"pair": f"{_name(cell.label, names)} → {_name(cell.answer, names)}"}
        for cell in wrong[:MOST_PAIRS]
    ]
    figure = None
    if values:
        order = [each["pair"] for each in values]
        base = alt.Chart(alt.InlineData(values=values)).encode(
            y=alt.Y("pair:N", title=None, sort=order).axis(labelLimit=170, grid=False),
            x=alt.X("change:Q", title="More or fewer images").axis(
                labelExpr="datum.value == 0 ? '0' : format(datum.value, '+d')", values=_whole(values), grid=True
            ),
        )
        figure = charts.draw(
            base.mark_bar(cornerRadius=2, height={"band": 0.62})
            .encode(
                color=alt.Color(
                    "kind:N",
                    scale=alt.Scale(domain=["better", "worse"], range=["var(--chart-1)", "var(--chart-2)"]),
                    legend=None,
                ),
                description="text:N",
            )
            .properties(width=WIDTH - 100, height={"step": 24}),
            title="The confusions that changed most",
            description="Label → wrong answer: how many more images, or fewer, are so mistaken after the compression.",
        )
    head = ("Label", "Answer", "Before", "After", "Change")
    return Drawn("pairs", "Confusions that changed most", figure, head, [_row(each, names) for each in wrong[:100]])


def _whole(values: Sequence[Mapping[str, Any]]) -> list[int]:
    """Ticks for counts of images, which have no halves."""
    low, high = (bound(0, *(int(each["change"]) for each in values)) for bound in (min, max))
    step = max(1, math.ceil((high - low) / 6))
    return list(range(-(-low // step) * step, high + 1, step))


def _cell(cell: ConfusionCell, names: Sequence[str]) -> dict[str, Any]:
    change = cell.after - cell.before
    label, answer = _name(cell.label, names), _name(cell.answer, names)
    return {
        "label": label,
        "answer": answer,
        "change": change,
        "delta": f"{change:+d}".replace("-", "−"),
        "size": abs(change),
        "kind": "better" if (change > 0) == (cell.label == cell.answer) else "worse",
        "text": f"{label} answered {answer}: {cell.before} before, {cell.after} after",
    }


def _row(cell: ConfusionCell, names: Sequence[str]) -> Row:
    change = f"{cell.after - cell.before:+d}".replace("-", "−")
    return _name(cell.label, names), _name(cell.answer, names), str(cell.before), str(cell.after), change


def _name(label: int, names: Sequence[str]) -> str:
    return names[label] if label < len(names) else str(label)
