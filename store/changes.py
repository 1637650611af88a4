"""What its owner changes about a job that is there: what it is called, another try, its end. No function commits."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from store import jobs, trash
from store.errors import JobNotFinishedError, JobNotFoundError, JobNotRetriableError
from store.session import now
from store.states import ENDED, JobState
from store.tables import Job
from store.transitions import NO_STAGE, write
from store.values import JobView

EDITABLE = frozenset({"name", "labels", "notes", "priority"})
RETRIABLE = (JobState.FAILED, JobState.CANCELLED)


def edit(session: Session, job_id: str, changes: Mapping[str, Any]) -> JobView:
    """Of ``EDITABLE``; the rest of the job does not move. Lock it first (``revision``). Raises ``JobNotFoundError``."""
    assert changes.keys() <= EDITABLE, f"must be of {sorted(EDITABLE)}, got {sorted(changes)}"
    session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(**changes, revision=Job.revision + 1)
        .execution_options(synchronize_session=False)
    )
    return jobs.get(session, job_id)


def revision(session: Session, job_id: str) -> int:
    """Of what ``edit`` may change, and nobody changes it until the transaction ends. Raises ``JobNotFoundError``."""
    found = session.scalar(select(Job.revision).where(Job.id == job_id).with_for_update())
    if found is None:
        raise JobNotFoundError(job_id)
    return found


def retry(session: Session, job_id: str, max_attempts: int) -> JobView:
    """Failed or cancelled → queued: the same job with all that it went through, and ``max_attempts`` more.

    A checkpoint that the sweeper has not deleted yet is where the next attempt goes on.
    Raises ``JobNotFoundError``, ``JobNotRetriableError``.
    """
    at = now(session)
    written = write(
        session,
        Job.id == job_id,
        Job.state.in_(RETRIABLE),
        at=at,
        message="retried",
        state=JobState.QUEUED,
        max_attempts=Job.attempt + max_attempts,
        error_code=None,
        error_message=None,
        **NO_STAGE,
        finished_at=None,
        rung_at=at,
    )
    job = jobs.get(session, job_id)
    if not written:
        raise JobNotRetriableError(job_id, job.state)
    return job


def delete_(session: Session, job_id: str) -> None:
    """A job that has ended, with its events, its artifacts and whatever else it left.

    Raises ``JobNotFoundError``, ``JobNotFinishedError``.
    """
    deleted = delete(Job).where(Job.id == job_id, Job.state.in_(ENDED)).returning(Job.owner_id, Job.created_at)
    gone = session.execute(deleted).one_or_none()
    if gone is None:
        raise JobNotFinishedError(job_id, jobs.get(session, job_id).state)
    jobs.remember_submission(session, gone.owner_id, gone.created_at)
    trash.throw(session, trash.job_prefix(job_id))
