"""What the sweeper does to jobs whose worker is gone, that nobody was woken for, or whose files are not to be kept any
more. No function commits."""

from datetime import timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session, aliased

from store import trash
from store.session import now
from store.states import ENDED, JobState
from store.tables import Artifact, Job
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


def unrung(session: Session, limit: int = 16) -> list[Doorbell]:
    """The next in line of the jobs that came back to the queue unheard, marked as rung: commit, then ring.

    A bell that is lost is not rung again: whoever is idle looks for itself, and whoever is not does so at its job's
    end. ``limit`` keeps many from filling the broker, and costs nothing, as a worker, once woken, takes jobs until
    none waits.
    """
    at = now(session)
    waiting = aliased(Job)
    ids = (
        select(waiting.id)
        .where(waiting.state == JobState.QUEUED, waiting.rung_at.is_(None))
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
    """The ids of jobs that have ended, however, and still have a checkpoint: ``forget`` it."""
    ids = select(Job.id).where(Job.checkpoint.is_not(None), Job.state.in_(ENDED)).order_by(Job.id).limit(limit)
    return list(session.scalars(ids))


def forget_checkpoint(session: Session, job_id: str) -> bool:
    """The job has no checkpoint any more: delete the blobs in this transaction, for which a retry waits.

    False: it has been retried or deleted meanwhile, and the blobs are not to be touched.
    """
    forgotten = update(Job).where(Job.id == job_id, Job.state.in_(ENDED)).values(checkpoint=None).returning(Job.id)
    return session.scalar(forgotten) is not None


def retire_artifacts(session: Session, kept: timedelta, limit: int = 16) -> list[str]:
    """Delete the artifacts of jobs that have ended longer ago; the jobs, their reports and plans stay.

    Returns the ids of those jobs.
    """
    at = now(session)
    old = aliased(Job)
    ids = select(old.id).where(
        old.state == JobState.SUCCEEDED, old.artifacts_deleted_at.is_(None), old.finished_at < at - kept
    )
    retired = list(
        session.scalars(
            update(Job)
            .where(locked(ids.order_by(old.finished_at).limit(limit)), Job.artifacts_deleted_at.is_(None))
            .values(artifacts_deleted_at=at)
            .returning(Job.id)
            .execution_options(synchronize_session=False)
        )
    )
    session.execute(delete(Artifact).where(Artifact.job_id.in_(retired)))
    trash.throw(session, *(trash.job_prefix(job_id) for job_id in retired))
    return retired
