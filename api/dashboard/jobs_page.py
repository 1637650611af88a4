"""The visitor's jobs: what became of them, and when the others will be done."""

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import StringConstraints

from api.dashboard.compare_page import goal
from api.dashboard.render import page
from api.dashboard.team_page import WAITING_FOR
from api.dashboard.visitor import Visitor
from api.dependencies import JobCursor, next_cursor, split_label
from api.queue import heard_lately
from api.resources import Found
from api.schemas import LABEL_WANTED
from store import forecast, jobs
from store.session import transaction
from store.states import JobState

ON_A_PAGE = 25
# Of the visitor's jobs in the queue, those whose ends are estimated: more than a page shows.
FORESEEN = 200

LABEL_PATTERN = "[A-Za-z0-9][A-Za-z0-9._\\/\\-]{0,62}(=.{1,200})?"  # as browsers want it
# A form sends what is left empty, too.
Wanted = Annotated[str, Query(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Label = Annotated[str, StringConstraints(pattern=f"^({LABEL_WANTED})?$")]

router = APIRouter()


@router.get("/jobs")
def list_(
    request: Request,
    visitor: Visitor,
    found: Found,
    cursor: JobCursor,
    state: Annotated[list[JobState], Query()] = [],  # noqa: B006 - FastAPI's way
    model: Wanted = "",
    dataset: Wanted = "",
    name: Wanted = "",
    label: Annotated[list[Label], Query(max_length=33)] = [],  # noqa: B006 - FastAPI's way
) -> HTMLResponse:
    """The filters are those of the API, and in the address, so that a list can be kept as a bookmark."""
    labels = list(dict.fromkeys(each for each in label if each))
    with transaction(found.engine, read_only=True) as session:
        listed = jobs.list_(
            session,
            visitor.owner_id,
            states=state,
            model=model or None,
            dataset=dataset or None,
            name=name or None,
            labels=[split_label(each) for each in labels],
            cursor=cursor,
            limit=ON_A_PAGE,
        )
        places = (
            forecast.own(session, visitor.owner_id, within=heard_lately(found.settings), limit=FORESEEN)
            if any(not job.state.is_final for job in listed.items)
            else []
        )
    filters = {"name": name, "model": model, "dataset": dataset, "label": labels}
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
        is_filtered=any(filters.values()),
        address=_address,
        with_label=_with,
        without=_without,
        known_labels=sorted({f"{key}={value}" for job in listed.items for key, value in job.labels.items()}),
        label_pattern=LABEL_PATTERN,
        older=next_cursor(listed),
        is_first=cursor is None,
    )


def _with(labels: Sequence[str], key: str, value: str) -> list[str]:
    return [*_without(labels, f"{key}={value}"), f"{key}={value}"]


def _without(labels: Sequence[str], label: str) -> list[str]:
    return [each for each in labels if each != label]


def _address(**wanted: object) -> str:
    """Of the list with those filters; what is empty is none."""
    given = {name: value for name, value in wanted.items() if value}
    return f"/jobs?{urlencode(given, doseq=True)}" if given else "/jobs"
