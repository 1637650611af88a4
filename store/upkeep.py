"""What the sweeper does to jobs whose worker is gone, or that nobody was woken for. No function commits."""

from datetime import timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session, aliased

from store.session import now
from store.tables import Job, JobState
from store.transitions import end_attempts, locked
from store.values import Doorbell, JobError


def sweep_expired(session: Session) -> list[str]:
    """End the attempts whose lease has lapsed: their worker is dead or cut off. Returns the ids of their jobs.

    Sweeps may run at once: the second finds the rows of the first locked, and skips them.
    """
    lapsed = aliased(Job)
    ids = select(lapsed.id).where(lapsed.lease_expires_at < now(session))
    error = JobError("attempts_exhausted", "the worker was lost while it ran this job")
    return [row.id for row in end_attempts(session, locked(ids), Job.lease_token.is_not(None), error=error)]


def unrung(session: Session, silence: timedelta, limit: int = 16) -> list[Doorbell]:
    """The queued jobs next in line that nobody has been woken for in ``silence``, marked as rung: commit, then ring.

    ``limit`` keeps a long queue from filling the broker. It costs nothing: a worker, once woken, takes jobs until
    none waits.
    """
    at = now(session)
    waiting = aliased(Job)
    ids = (
        select(waiting.id)
        .where(waiting.state == JobState.QUEUED, or_(waiting.rung_at.is_(None), waiting.rung_at < at - silence))
        .order_by(waiting.priority.desc(), waiting.id)
        .limit(limit)
    )
    rows = session.execute(
        update(Job)
        .where(locked(ids), Job.state == JobState.QUEUED)
        .values(rung_at=at)
        .returning(Job.id, Job.queue)
        .execution_options(synchronize_session=False)
    )
    return [Doorbell(row.id, row.queue) for row in rows]


def with_useless_checkpoint(session: Session, limit: int = 16) -> list[str]:
    """The ids of jobs that have ended, however, and still have a checkpoint: delete its blobs, then ``forget`` it."""
    ended = [state for state in JobState if state.is_final]
    ids = select(Job.id).where(Job.checkpoint.is_not(None), Job.state.in_(ended)).order_by(Job.id).limit(limit)
    return list(session.scalars(ids))


def forget_checkpoint(session: Session, job_id: str) -> None:
    """The blobs of the checkpoint of a job that has ended are gone."""
    session.execute(update(Job).where(Job.id == job_id).values(checkpoint=None))
