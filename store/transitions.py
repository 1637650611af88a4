"""How a job's row is written: one guarded UPDATE, and in the same transaction one event for every row that it hit, and
what webhooks are told of it.

``store.states.JobState`` documents the machine; ``store.jobs``, ``changes``, ``attempts``, ``checks`` and ``upkeep``
are its moves, and nobody else writes ``jobs.state``. Every move names the state that it leaves in its WHERE; those of
an attempt name its lease token too (the fence), so that a worker which was paused, cut off or presumed dead writes
nothing when it wakes. No function commits.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    Text,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from store import outbox, subjects, trash
from store.session import now
from store.states import EventKind, JobState
from store.tables import Base, Event, Job
from store.values import Claim, JobError

_WRITTEN = (
    Job.id, Job.owner_id, Job.project_id, Job.kind, Job.state, Job.stage, Job.stage_fraction, Job.stage_loss,
    Job.stage_eta_seconds, Job.attempt,
)  # fmt: skip
# The number of the transaction, by which ``store.project_events`` reads; but never one below that of the job's event
# before. A transaction may have begun before the one that wrote that, and have waited for the job until it ended.
_IN_ORDER = insert(Base.metadata.tables["events"]).values(
    xid=func.greatest(
        cast(cast(func.pg_current_xact_id(), Text), BigInteger),
        select(Event.xid)
        .where(Event.job_id == bindparam("of_job"))
        .order_by(Event.id.desc())
        .limit(1)
        .correlate(None)
        .scalar_subquery(),
    )
)
NO_STAGE: dict[str, Any] = {"stage": None, "stage_fraction": 0.0, "stage_loss": None}


def fence(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    """The claim's attempt still holds its job."""
    return Job.id == claim.job_id, Job.lease_token == claim.token


def locked(ids: Select[str]) -> ColumnElement[bool]:
    """The jobs that ``ids`` selects, locked, without those that others have locked.

    A CTE, because PostgreSQL may run a plain sub-select once for every row, and each time a LIMIT takes other ids.
    """
    locked = ids.with_for_update(skip_locked=True).cte("locked")
    return Job.id.in_(select(locked.c.id))


def unleased(finished_at: Any) -> dict[str, Any]:
    """What every end of an attempt sets. ``finished_at``: None where the job is queued again."""
    return {"lease_token": None, "lease_expires_at": None, "finished_at": finished_at, "stage_eta_seconds": None}


def literal_state(state: JobState) -> ColumnElement[JobState]:
    """With its type, which a CASE does not give it."""
    return literal(state, Job.state.type)


def end_attempts(session: Session, *where: ColumnElement[bool], error: JobError) -> list[Any]:
    """Cancelling → cancelled; else → queued again or, after the last attempt, → failed. Returns the rows."""
    at = now(session)
    cancelling = Job.state == JobState.CANCELLING
    last = Job.attempt >= Job.max_attempts
    ends = or_(cancelling, last)
    fails = case((cancelling, False), else_=last)
    return write(
        session,
        *where,
        at=at,
        message=error.message,
        state=case(
            (cancelling, literal_state(JobState.CANCELLED)),
            (last, literal_state(JobState.FAILED)),
            else_=literal_state(JobState.QUEUED),
        ),
        error_code=case((fails, error.code), else_=None),
        error_message=case((fails, error.message), else_=None),
        stage=case((ends, Job.stage), else_=None),
        stage_fraction=case((ends, Job.stage_fraction), else_=0.0),
        stage_loss=case((ends, Job.stage_loss), else_=None),
        rung_at=None,
        **unleased(case((ends, literal(at, Job.finished_at.type)), else_=None)),
    )


def write(
    session: Session,
    *where: ColumnElement[bool],
    at: datetime,
    kind: EventKind = EventKind.STATE,
    message: str | None = None,
    **values: Any,
) -> list[Any]:
    """One guarded UPDATE, and one event for every row that it hit: returns those rows."""
    statement = (
        update(Job).where(*where).values(**values).returning(*_WRITTEN).execution_options(synchronize_session=False)
    )
    rows = list(session.execute(statement).all())
    if rows:
        log(session, kind, at, rows, message)
        if kind is EventKind.STATE:
            outbox.announce_jobs(session, rows)
            subjects.reject_unchecked(session, rows)
            trash.throw(session, *_left_behind(rows))
    return rows


def _left_behind(rows: Sequence[Any]) -> list[str]:
    """The prefixes of attempts that ended without an outcome that is kept; what was thrown before is among them."""
    kept = {JobState.RUNNING, JobState.CANCELLING, JobState.SUCCEEDED}
    return [trash.attempt_prefix(row.id, row.attempt) for row in rows if row.state not in kept and row.attempt > 0]


def log(session: Session, kind: EventKind, at: datetime, rows: Sequence[Any], message: str | None = None) -> None:
    """One event for each of ``rows``, as they are after they were written in this transaction."""
    events = [
        {
            "job_id": row.id,
            "kind": kind,
            "at": at,
            "state": row.state,
            "stage": row.stage,
            "fraction": row.stage_fraction,
            "loss": row.stage_loss,
            "eta_seconds": row.stage_eta_seconds,
            "attempt": row.attempt,
            "message": message,
        }
        for row in rows
    ]
    if session.get_bind().dialect.name == "sqlite":
        session.execute(insert(Event), events)
        return
    session.execute(_IN_ORDER, [event | {"of_job": event["job_id"]} for event in events])


def state_of(rows: Sequence[Any]) -> JobState | None:
    """Of the one row that there is; None: there is none."""
    return rows[0].state if rows else None
