"""The visitor's jobs: what became of them, and when the others will be done."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from api.dashboard.compare_page import goal
from api.dashboard.render import page
from api.dashboard.team_page import WAITING_FOR
from api.dashboard.visitor import Visitor
from api.dependencies import JobCursor, encode_cursor
from api.queue import heard_lately
from api.resources import Found
from store import forecast, jobs
from store.session import transaction
from store.tables import JobState

ON_A_PAGE = 25
# Of the visitor's jobs in the queue, those whose ends are estimated: more than a page shows.
FORESEEN = 200

router = APIRouter()


@router.get("/jobs")
def list_(
    request: Request,
    visitor: Visitor,
    found: Found,
    cursor: JobCursor,
    state: Annotated[list[JobState], Query()] = [],  # noqa: B006 - FastAPI's way
    model: str = "",
    dataset: str = "",
) -> HTMLResponse:
    """The filters are those of the API, and in the address, so that a list can be kept as a bookmark."""
    with transaction(found.engine, read_only=True) as session:
        listed = jobs.list_(
            session,
            visitor.owner_id,
            states=state,
            model=model or None,
            dataset=dataset or None,
            cursor=cursor,
            limit=ON_A_PAGE,
        )
        places = (
            forecast.own(session, visitor.owner_id, within=heard_lately(found.settings), limit=FORESEEN)
            if any(not job.state.is_final for job in listed.items)
            else []
        )
    filters = {"model": model, "dataset": dataset}
    return page(
        request,
        "jobs.html",
        visitor=visitor,
        jobs=listed.items,
        places={each.id: each for each in places},
        waiting_for=WAITING_FOR,
        goal=goal,
        states=[None, *(each for each in JobState if each is not JobState.CANCELLING)],
        chosen=state,
        filters=filters,
        address=_address,
        older=None if listed.next_cursor is None else encode_cursor(listed.next_cursor),
        is_first=cursor is None,
    )


def _address(**wanted: object) -> str:
    """Of the list with those filters; what is empty is none."""
    given = {name: value for name, value in wanted.items() if value}
    return f"/jobs?{urlencode(given, doseq=True)}" if given else "/jobs"
