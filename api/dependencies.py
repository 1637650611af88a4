"""The parts of a request that several routes read alike."""

import base64
import binascii
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Path, Query, Request

from api.errors import InvalidRequestError
from api.identity import known
from api.resources import found_by
from api.schemas import LabelWanted
from store import jobs
from store.errors import JobNotFoundError
from store.values import JobView, Page


async def job_id(job_id: Annotated[str, Path(description="As `POST /v1/jobs` returned it")], request: Request) -> str:
    """The canonical id of a job of whoever asks. This and ``job`` are the only ways for a route to name a job.

    Raises ``JobNotFoundError`` for what is no id, for no job, and for somebody else's.
    """
    canonical = canonical_id(job_id)
    if canonical is None or not await found_by(request).gathered.ask(
        jobs.owned_each, (canonical, (await known(request)).owner_id)
    ):
        raise JobNotFoundError(job_id)
    return canonical


async def job(job_id: Annotated[str, Path(description="As `POST /v1/jobs` returned it")], request: Request) -> JobView:
    """As ``job_id``, and the job itself with it."""
    canonical = canonical_id(job_id)
    asked = None if canonical is None else (canonical, (await known(request)).owner_id)
    found = found_by(request)
    look = None if asked is None else await found.gathered.ask(found.looks.each, asked)
    if look is None:
        raise JobNotFoundError(job_id)
    return look.view


async def cursor(
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before", max_length=400)] = None,
) -> str | None:
    """What ``encode_cursor`` was given."""
    if cursor is None:
        return None
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise malformed_cursor() from None


async def job_cursor(cursor: Annotated[str | None, Depends(cursor)]) -> str | None:
    """Of lists that go on behind an id. Raises ``InvalidRequestError``."""
    if cursor is not None and canonical_id(cursor) is None:
        raise malformed_cursor()
    return cursor


async def name_cursor(cursor: Annotated[str | None, Depends(cursor)]) -> str | None:
    """Of lists that go on behind a name. Raises ``InvalidRequestError``."""
    if cursor is not None and not cursor.isprintable():  # PostgreSQL's text cannot hold NUL
        raise malformed_cursor()
    return cursor


async def labels(
    label: Annotated[
        list[LabelWanted],
        Query(max_length=32, description="`key=value`, or `key` for any value. Repeat it for all of several"),
    ] = [],  # noqa: B006 - FastAPI's way
) -> list[tuple[str, str | None]]:
    """Each key, with the value that it must have; None: any."""
    return [split_label(each) for each in label]


def split_label(wanted: str) -> tuple[str, str | None]:
    """``wanted`` is ``key=value``, whose value may have further ``=``, or ``key`` alone; None: any value."""
    key, equals, value = wanted.partition("=")
    return key, value if equals else None


def encode_cursor(last: str) -> str:
    """Opaque to clients, so that what a page is continued by can change."""
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def next_cursor(page: Page[Any]) -> str | None:
    """None on the last page."""
    return None if page.next_cursor is None else encode_cursor(page.next_cursor)


def malformed_cursor() -> InvalidRequestError:
    """To be raised for a cursor that no page can have given out."""
    message = "must be the next_cursor of a page, unchanged"
    return InvalidRequestError([{"field": "cursor", "code": "malformed_cursor", "message": message}])


def canonical_id(given: str) -> str | None:
    """None for what is no id: it cannot even be looked for."""
    try:
        return str(UUID(given))
    except ValueError:
        return None


JobId = Annotated[str, Depends(job_id)]
SeenJob = Annotated[JobView, Depends(job)]
Cursor = Annotated[str | None, Depends(cursor)]
JobCursor = Annotated[str | None, Depends(job_cursor)]
NameCursor = Annotated[str | None, Depends(name_cursor)]
WantedLabels = Annotated[list[tuple[str, str | None]], Depends(labels)]
Limit = Annotated[int, Query(ge=1, le=200, description="Items on a page")]
