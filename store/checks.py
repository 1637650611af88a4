"""Jobs that check what an owner brought: ``kind`` says what, ``subject_id`` which row of ``own_models`` or
``own_datasets``. No function commits."""

from collections.abc import Mapping

from sqlalchemy.orm import Session

from store import subjects
from store.errors import LeaseLostError
from store.session import now
from store.states import EventKind, JobKind, JobState, Queue
from store.tables import Job
from store.transitions import fence, log, unleased, write
from store.values import Claim, JobError, Place

QUEUE = Queue.CPU  # what a check needs
PRIORITY = 10  # the highest that a job may ask for: its owner waits to use what is checked


def enqueue(
    session: Session,
    place: Place,
    kind: JobKind,
    subject_id: str,
    *,
    created_by: str | None = None,
    max_attempts: int = 3,
) -> str:
    """The id of the new job: commit, then ring for it in ``QUEUE``."""
    created_at = now(session)
    job = Job(
        owner_id=place.owner_id,
        project_id=place.project_id,
        kind=kind,
        subject_id=subject_id,
        created_by=created_by,
        revision=0,
        model="",
        dataset="",
        recipe={},
        labels={},
        max_attempts=max_attempts,
        queue=QUEUE,
        priority=PRIORITY,
        state=JobState.QUEUED,
        stage_fraction=0.0,
        attempt=0,
        created_at=created_at,
        rung_at=created_at,
    )
    session.add(job)
    session.flush()
    log(session, EventKind.STATE, created_at, [job])
    return job.id


def finish_check(
    session: Session, claim: Claim, error: JobError | None, *, stage_seconds: Mapping[str, float], **found: object
) -> None:
    """Running → succeeded, and the subject ready with what was ``found``, or rejected with an ``error``: to find that
    it is no good is a check that did its work. Raises ``LeaseLostError``."""
    at = now(session)
    seconds = {str(stage): taken for stage, taken in stage_seconds.items()}
    running = Job.state == JobState.RUNNING
    if not write(
        session, *fence(claim), running, at=at, state=JobState.SUCCEEDED, stage_seconds=seconds, **unleased(at)
    ):
        raise LeaseLostError(claim.job_id, claim.attempt)
    assert claim.subject_id is not None
    subjects.decide(session, claim.kind, claim.subject_id, error, **found)
