"""The log of a job, as its followers read it; ``store.transitions`` alone writes it. No function commits."""

from collections.abc import Collection

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.states import EventKind
from store.tables import Event, Job
from store.values import EventView


def after(
    session: Session, job_id: str, last_event_id: int = 0, limit: int = 100, kinds: Collection[EventKind] = ()
) -> list[EventView]:
    """The log behind ``last_event_id``, oldest first. ``kinds``: any of them; empty: all.

    Empty for a job that is not there, too.
    """
    query = select(Event).where(Event.job_id == job_id, Event.id > last_event_id).order_by(Event.id).limit(limit)
    if kinds:
        query = query.where(Event.kind.in_(kinds))
    return [view(row) for row in session.scalars(query)]


def after_each(
    session: Session, asked: Collection[tuple[str, int]], limit: int = 100
) -> dict[tuple[str, int], list[EventView]]:
    """As ``after``, by the ids of jobs and of their events; those behind which there is nothing are left out."""
    newest = last_ids(session, {job_id for job_id, _ in asked})
    behind = [(job_id, seen) for job_id, seen in asked if newest.get(job_id, 0) > seen]
    return {each: after(session, *each, limit) for each in behind}


def last_ids(session: Session, job_ids: Collection[str]) -> dict[str, int]:
    """The ids that ``after`` continues from now on, of those of the jobs that have events."""
    last = select(func.max(Event.id)).where(Event.job_id == Job.id).scalar_subquery()
    rows = session.execute(select(Job.id, last.label("last")).where(Job.id.in_(job_ids)))
    return {row.id: row.last for row in rows if row.last is not None}


def view(row: Event) -> EventView:
    """The row, apart from its session."""
    return EventView(
        row.id,
        row.kind,
        row.at,
        row.state,
        row.stage,
        row.fraction,
        row.loss,
        row.eta_seconds,
        row.attempt,
        row.message,
    )
