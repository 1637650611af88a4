"""A project's events as a stream of server-sent events. An idle one holds no thread, no session and no connection."""

import time
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
import anyio.to_thread
import structlog
from fastapi import APIRouter, Depends, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy import Engine

from api.errors import DATABASE_UNREACHABLE, InvalidRequestError, responses
from api.events import POLL_SECONDS
from api.identity import Reader
from api.projects import Name
from api.resources import Database, Found, Resources
from api.schemas import ProjectEvent, ProjectOpened
from store import owners, project_events
from store.errors import ProjectNotFoundError
from store.project_events import Position
from store.session import transaction

PAGE = 200
STREAM_SECONDS = 3600  # then its reader comes again, and shows its key again

_SCHEMAS = [{"$ref": "#/components/schemas/ProjectEvent"}, {"$ref": "#/components/schemas/ProjectOpened"}]
_EVENT = {"data": {"contentMediaType": "application/json", "contentSchema": {"anyOf": _SCHEMAS}}}
_DECLARED = {
    "responses": {
        "200": {
            "description": "Events whose `data` is a `ProjectEvent`, but for the first",
            "content": {"text/event-stream": {"itemSchema": {"properties": _EVENT}}},
        }
    }
}

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/v1/projects/{name}/events", tags=["projects"])


def resumed(
    last_event_id: Annotated[str | None, Header(max_length=60, description="Resumes behind this event")] = None,
) -> Position | None:
    """Behind which event the stream goes on; None: from now on. Raises ``InvalidRequestError``."""
    if last_event_id is None:
        return None
    position = Position.parse(last_event_id)
    if position is None:
        message = "must be the id of an event of this stream, unchanged"
        raise InvalidRequestError([{"field": "last-event-id", "code": "malformed_event_id", "message": message}])
    return position


def opening(name: Name, asking: Reader, engine: Database) -> tuple[str, Position]:
    """The project's id, and where its events end now."""
    with transaction(engine, read_only=True) as session:
        return owners.place(session, asking.owner_id, name).project_id, project_events.settled(session)


@router.get(
    "",
    name="watch_project",
    summary="Watch all jobs of a project",
    response_class=EventSourceResponse,
    responses=responses(ProjectNotFoundError),
    openapi_extra=_DECLARED,
)
async def watch(
    name: Name,
    opened: Annotated[tuple[str, Position], Depends(opening)],
    last: Annotated[Position | None, Depends(resumed)],
    found: Found,
) -> AsyncIterator[ServerSentEvent]:
    """What happens to the project's jobs, from now on: first `opened`, then each event as it happens.

    With `Last-Event-ID` it begins with what happened since; nothing is missed, and of one job all comes in order.
    Comments keep it alive. It ends after an hour: come again with the last id, which browsers do by themselves.
    """
    (project_id, position), ends_at = opened, time.monotonic() + STREAM_SECONDS
    if last is None:
        yield ServerSentEvent(event="opened", id=str(position), data=ProjectOpened(project=name))
    else:
        position = last
    while not found.stopping.is_set() and time.monotonic() < ends_at:
        events, position = await _after(found, project_id, position)
        for each in events:
            data = ProjectEvent.model_validate(
                {field: getattr(each.event, field) for field in ProjectEvent.model_fields if field != "job_id"}
                | {"job_id": each.job_id}
            )
            yield ServerSentEvent(event=each.event.kind, id=str(each.position), data=data)
        if not events:
            await anyio.sleep(POLL_SECONDS)


async def _after(
    found: Resources, project_id: str, position: Position
) -> tuple[list[project_events.ProjectEvent], Position]:
    """Nothing new while the database is away: the stream has begun, and outlives that."""
    try:
        return await anyio.to_thread.run_sync(_read, found.engine, project_id, position, limiter=found.watchers)
    except DATABASE_UNREACHABLE as error:
        log.warning("events not read", project_id=project_id, error=type(error).__name__)
        return [], position


def _read(engine: Engine, project_id: str, position: Position) -> tuple[list[project_events.ProjectEvent], Position]:
    with transaction(engine, read_only=True) as session:
        return project_events.after(session, project_id, position, PAGE)
