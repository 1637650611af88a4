"""Jobs side by side: their models on one chart, and in one table."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from api.compare import FEWEST, MOST, Compared, basis, canonical_ids, comparison, latency_ms, results
from api.dashboard import charts
from api.dashboard.figures import percent, short
from api.dashboard.pareto_chart import MOST_COLOURS, Cost, Point, pareto
from api.dashboard.render import page
from api.dashboard.visitor import Visitor
from api.errors import InvalidRequestError
from api.resources import Database
from api.schemas_requests import ComparedModel, Dominated
from core.recipe import AnyRecipe
from core.report import Measured, Proportion, folder
from store import jobs
from store.session import transaction
from store.states import JobState
from store.values import JobView

By = Literal["parameters", "macs", "latency"]
COSTS: dict[By, Cost] = {
    "parameters": Cost("Parameters", "~s"),
    "macs": Cost("MACs of one image", "~s"),
    "latency": Cost("Median latency of one image, ms", "~g"),
}
WIDE, NARROW = 980, 260  # pixels of the plot: a figure made for the desk would be too small to read on a phone
OFFERED = 200  # of the latest jobs, to pick from

router = APIRouter()


@router.get("/compare")
def get(
    request: Request,
    visitor: Visitor,
    engine: Database,
    given: Annotated[list[str], Query(alias="jobs")] = [],  # noqa: B006 - FastAPI's way
    by: By = "parameters",
) -> HTMLResponse:
    """``jobs``: ids, repeated as a form sends them, or with commas between as the API wants them."""
    picked = _ids(given)
    with transaction(engine, read_only=True) as session:
        offered = jobs.list_(session, visitor.owner_id, states=[JobState.SUCCEEDED], limit=OFFERED).items
        compared = results(session, picked, visitor)
    context = _compared(request, compared, by) if len(compared) >= FEWEST else {"models": None}
    return page(
        request,
        "compare.html",
        visitor=visitor,
        picked=picked,
        offered=_by_data(offered),
        goal=goal,
        fewest=FEWEST,
        most=MOST,
        **context,
    )


def _ids(given: Sequence[str]) -> list[str]:
    """Canonical, each once. Raises ``JobNotFoundError``, and ``InvalidRequestError`` for more than can be compared."""
    ids = canonical_ids([part.strip() for each in given for part in each.split(",") if part.strip()])
    if len(ids) > MOST:
        message = f"at most {MOST} jobs can be compared at once, got {len(ids)}"
        raise InvalidRequestError([{"field": "jobs", "code": "number_of_jobs", "message": message}])
    return ids


def _by_data(offered: Sequence[JobView]) -> dict[tuple[str, str], list[JobView]]:
    """Jobs that can be compared with each other together, those with the latest one first."""
    groups: dict[tuple[str, str], list[JobView]] = {}
    for job in offered:
        groups.setdefault((job.model, job.dataset), []).append(job)
    return groups


def _compared(request: Request, compared: Sequence[Compared], by: By) -> dict[str, object]:
    found = comparison(compared, request)
    points = _points(compared, found.items, by)
    ids = ",".join(dict.fromkeys(job.id for job, _ in compared))
    return {
        "models": [
            {
                "row": row,
                "name": _name(job),
                "href": _href(job, row),
                "error": _error(row.top1),
                "latency_ms": latency_ms(report.after),
                "beaten": _beaten(row.dominated, by),
            }
            for (job, report), row in zip(compared, found.items, strict=True)
        ],
        "comparable": found.comparable,
        "warnings": found.warnings,
        "by": by,
        "costs": COSTS,
        "ids": ids,
        "wide": _chart(points, by, WIDE, 400),
        "narrow": _chart(points, by, NARROW, 300),
        "untold": all(point.beaten is None for point in points if not point.is_original),
        "missing": sum(latency_ms(report.after) is None for _, report in compared) if by == "latency" else 0,
    }


def _chart(points: Sequence[Point], by: By, width: int, height: int) -> Markup:
    front = sum(point.beaten is False for point in points if not point.is_original)
    models = sum(not point.is_original for point in points)
    return charts.draw(
        pareto(points, COSTS[by], width=width, height=height),
        title=f"Error against {COSTS[by].title[0].lower()}{COSTS[by].title[1:]}",
        description=f"{models} models, of which {front} are beaten by no other. Each point leads to its files.",
    )


def _points(compared: Sequence[Compared], rows: Sequence[ComparedModel], by: By) -> list[Point]:
    groups = list(dict.fromkeys(basis(job, report) for job, report in compared))
    many = len({job.id for job, _ in compared}) > MOST_COLOURS
    points: dict[object, Point] = {}
    for (job, report), row in zip(compared, rows, strict=True):
        group = groups.index(basis(job, report))
        cost, original = _cost(report.after, by), _cost(report.before, by)
        if cost is not None:
            low, error, high = _error(row.top1)
            points[len(points)] = Point(
                label=f"−{percent(row.ratio, 0)}",
                series=row.method if many else _name(job),
                group=group,
                cost=cost,
                error=error,
                low=low,
                high=high,
                beaten=_beaten(row.dominated, by),
                href=_href(job, row),
            )
        if original is not None:
            low, error, high = _error(report.before.accuracy.top1)
            points.setdefault(
                f"original of {group}",
                Point("original", job.model, group, original, error, low, high, beaten=None, href=None),
            )
    return list(points.values())


def _cost(measured: Measured, by: By) -> float | None:
    if by == "latency":
        return latency_ms(measured)
    return measured.parameters if by == "parameters" else measured.macs


def _beaten(dominated: Dominated, by: By) -> bool | None:
    return {"parameters": dominated.by_parameters, "macs": dominated.by_macs, "latency": dominated.by_latency}[by]


def _error(top1: Proportion) -> tuple[float, float, float]:
    """Low, measured, high."""
    return 1 - top1.high, 1 - top1.value, 1 - top1.low


def goal(recipe: AnyRecipe) -> str:
    """In a few characters."""
    if recipe.target_ratios is not None:
        return ", ".join(f"−{percent(ratio, 0)}" for ratio in recipe.target_ratios)
    asked = {
        "parameters": recipe.target_ratio,
        "MACs": recipe.target_macs,
        "latency": recipe.target_latency,
    }
    for what, fraction in asked.items():
        if fraction is not None:
            return f"−{percent(fraction, 0)} {what}"
    return f"error at most +{percent(recipe.max_error_increase, 0)}"


def _name(job: JobView) -> str:
    return job.name or f"{job.recipe.method} {short(job.id)}"


def _href(job: JobView, row: ComparedModel) -> str:
    """Of the files of the job, or of that model of a sweep."""
    return f"/jobs/{job.id}#files" if job.recipe.target_ratios is None else f"/jobs/{job.id}#{folder(row.requested)}"
