"""A job's events as a stream of server-sent events. An idle stream holds no thread, no session and no connection."""

from collections.abc import AsyncIterator
from typing import Annotated

import anyio
import structlog
from fastapi import APIRouter, Depends, Header, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.dependencies import JobId
from api.errors import DATABASE_UNREACHABLE, responses
from api.identity import known
from api.resources import Found, Resources
from api.schemas import JobEvent
from store import events
from store.errors import JobNotFoundError
from store.values import EventView, JobView

POLL_SECONDS = 0.5  # a cheap query, and no slower than people notice

_EVENT = {"data": {"contentMediaType": "application/json", "contentSchema": {"$ref": "#/components/schemas/JobEvent"}}}
_DECLARED = {
    "responses": {
        "200": {
            "description": "Events whose `data` is a `JobEvent`",
            "content": {"text/event-stream": {"itemSchema": {"properties": _EVENT}}},
        }
    }
}

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/v1/jobs/{job_id}/events", tags=["jobs"])


async def opening(job_id: JobId, request: Request, found: Found) -> tuple[JobView, int]:
    """The job, and the id of its last event. The id is read first: an event may then come twice, but none is missed."""
    last = await found.gathered.ask(events.last_ids, job_id) or 0
    look = await found.gathered.ask(found.looks.each, (job_id, (await known(request)).owner_id))
    if look is None:
        raise JobNotFoundError(job_id)
    return look.view, last


@router.get(
    "",
    name="watch_job",
    summary="Watch a job",
    response_class=EventSourceResponse,
    responses=responses(JobNotFoundError),
    openapi_extra=_DECLARED,
)
async def watch(
    opened: Annotated[tuple[JobView, int], Depends(opening)],
    found: Found,
    last_event_id: Annotated[int | None, Header(ge=0, lt=2**63, description="Resumes behind this event")] = None,
) -> AsyncIterator[ServerSentEvent]:
    """A `snapshot` of the job, then each event as it happens, until the job is final. Comments keep it alive.

    With `Last-Event-ID` the stream begins with what happened since, and has no snapshot.
    """
    job, seen = opened
    over = job.state.is_final
    if last_event_id is None:
        yield ServerSentEvent(event="snapshot", id=str(seen), data=_snapshot(job))
    else:
        seen = last_event_id
    while not found.stopping.is_set():
        new = await _events_after(found, job.id, seen)
        for event in new or ():
            yield ServerSentEvent(event=event.kind, id=str(event.id), data=JobEvent.model_validate(event))
            seen, over = event.id, event.state.is_final
        if new == [] and over:
            return
        if not new:
            await anyio.sleep(POLL_SECONDS)


async def _events_after(found: Resources, job_id: str, seen: int) -> list[EventView] | None:
    """None while the database is away: the stream has begun, and outlives that."""
    try:
        return await found.gathered.ask(events.after_each, (job_id, seen)) or []
    except DATABASE_UNREACHABLE as error:
        log.warning("events not read", job_id=job_id, error=type(error).__name__)
        return None


def _snapshot(job: JobView) -> JobEvent:
    return JobEvent(
        kind="snapshot",
        at=job.finished_at or job.started_at or job.created_at,
        state=job.state,
        stage=job.stage,
        fraction=job.stage_fraction,
        loss=job.stage_loss,
        eta_seconds=job.stage_eta_seconds,
        attempt=job.attempt,
        message=job.error.message if job.error else None,
    )
